"""kill -9 at every durable system call of a `forget`; the same again must end it, and leave nothing of the photo."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.faults.bench import Bench, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Child, fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_content, problems_of_forgotten, problems_of_store
from benchmarks.faults.kill_upkeep import two_versions
from benchmarks.faults.tracing import DURABLE, calls_made, traced

__all__ = ["FAULT"]

_Photo = tuple[str, str, tuple[int, ...]]


def _keys(bench: Bench, long: bool) -> list[str]:
    """Every durable call of a forget that rewrites both versions of a store, by its number among those of its name."""
    found = [f"{call}:{number}" for call, number in _undisturbed(bench.work)[0]]
    return found if long else sample(found, 10, seed=9)


def _run(bench: Bench, key: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """The kernel kills it as it enters the call; versions are whole then; the same again proves it, and a build keeps to it."""
    call, number = key.split(":")
    uri, sha256, faces = _photo(bench)
    with two_versions(bench) as store:
        child = _forget(bench, store, without)
        with traced(child, Path("/dev/null"), f"--trace={call}", f"--inject={call}:signal=SIGKILL:when={number}"):
            child.wait()
        problems = problems_of_store(store)
        again = _forget(bench, store, ())
        again.go()
        ended = again.wait()
        problems += [f"the rerun failed: {ended.error or ended.value}"] * (ended.value != {"verified": True})
        problems += [*problems_of_store(store), *problems_of_forgotten(store, (uri, sha256), faces)]
        built = bench.build(store)
        problems += [f"I4: the build after it failed: {built.error}"] * (built.error is not None)
        problems += [f"after the build, {what}" for what in problems_of_store(store)]
        return problems + problems_of_content(store, _undisturbed(bench.work)[1])


def _twin(bench: Bench) -> list[str]:
    """Versions overwritten where they stand; killed at every rename until one was half."""
    for number in range(1, 80):
        if problems := _run(bench, f"rename:{number}", without=("revision",)):
            return problems
    return []


def _forget(bench: Bench, store: Path, without: tuple[str, ...]) -> Child:
    """A child that waits at its gate to forget the photo; whatever Prefect keeps for this user is no business of it."""
    wanted = _photo(bench)[0]

    def work() -> Any:
        from tasks.steps.forget import forget_now  # noqa: PLC0415
        from tasks.steps.forget_exclude import Wish  # noqa: PLC0415

        os.environ["PREFECT_HOME"] = str(bench.work / "no-prefect")
        remove_guards(without)
        return {"verified": forget_now(Wish("photo", wanted), store=str(store))["verified"]}

    return fork(work, gated=True)


def _photo(bench: Bench) -> _Photo:
    """A photo with faces that both versions have: its uri, its hash and its faces' ids."""
    faces: dict[str, list[int]] = {}
    for row in pq.read_table(bench.base / "stored/faces.parquet", columns=["face_id", "photo_sha256"]).to_pylist():
        faces.setdefault(row["photo_sha256"], []).append(row["face_id"])
    photos = pq.read_table(bench.base / "second/versions/000001/photos.parquet").to_pylist()
    photo = next(row for row in photos if row["status"] == "indexed")
    return photo["uri"], photo["photo_sha256"], tuple(faces[photo["photo_sha256"]])


@lru_cache(maxsize=1)
def _undisturbed(work: Path) -> tuple[list[tuple[str, int]], str]:
    """The durable calls of a forget that nobody disturbs, and the content that a build after it gives."""
    bench, log = Bench(work), work / "calls-forget.log"
    with two_versions(bench) as store:
        child = _forget(bench, store, ())
        with traced(child, log, f"--trace={','.join(DURABLE)}"):
            ended = child.wait()
        assert ended.value == {"verified": True}, ended
        built = bench.build(store)
        assert built.error is None, built.error
        return calls_made(log, DURABLE), _content(store)


def _content(store: Path) -> str:
    number = int((store / "versions/CURRENT").read_bytes())
    return str(json.loads((store / f"versions/{number:06d}/manifest.json").read_bytes())["content_sha256"])


FAULT = Fault(
    name="kill_forget",
    title="kill -9 at every durable system call of a forget",
    how="`strace --inject=CALL:signal=SIGKILL:when=K` on a forget that rewrites two versions; then the same again, a scan of every"
    " byte and column for the photo's name, hash and face ids, and a build that must not take it in again",
    guard="versions are overwritten where they stand",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
