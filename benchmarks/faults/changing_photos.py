"""Photos that are rewritten while they are listed, read and searched for real."""

import os
import random
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench, build
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import fork
from benchmarks.faults.guards import remove_guards
from benchmarks.faults.invariants import problems_of_content, problems_of_store, snapshot

__all__ = ["FAULT"]


def _keys(bench: Bench, long: bool) -> list[str]:
    """Seeds of when and what is rewritten."""
    return [str(n) for n in range(50 if long else 2)]


def _run(bench: Bench, key: str) -> list[str]:
    """Rewrite three photos all the time while a build searches them; then it is quiet, and a rerun sees what is there."""
    work = bench.work / "trials" / uuid.uuid4().hex
    photos, store = work / "photos", work / "store"
    shutil.copytree(bench.source, photos)
    shutil.copytree(bench.base / "empty", store)
    try:
        writer = fork(lambda: _rewrite(sorted(photos.rglob("*_0000.jpg"))[:3], int(key)))
        disturbed = _search(bench, store, photos)
        writer.kill()
        writer.wait()
        problems = [f"the build failed: {disturbed.error}"] * (disturbed.error is not None and not disturbed.refused)
        before = snapshot(store)
        problems += problems_of_store(store)
        return problems + _quiet(bench, work, store, photos, before)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _twin(bench: Bench) -> list[str]:
    """A photo is known by its name alone: other bytes under that name are taken for the old ones."""
    work = bench.work / "trials" / uuid.uuid4().hex
    photos, store = work / "photos", work / "store"
    shutil.copytree(bench.source, photos)
    shutil.copytree(bench.base / "empty", store)
    try:
        _search(bench, store, photos, without=["fingerprint"])
        first, second, third = sorted(photos.rglob("*_*.jpg"))[:3]
        first.write_bytes(second.read_bytes())
        _search(bench, store, photos, without=["fingerprint"])
        first.write_bytes(third.read_bytes())
        return _quiet(bench, work, store, photos, snapshot(store), without=["fingerprint"])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _quiet(
    bench: Bench, work: Path, store: Path, photos: Path, before: dict[str, str], *, without: Sequence[str] = ()
) -> list[str]:
    """Build again until nothing is left to do, and compare with a store that never saw the disturbance."""
    for _ in range(4):
        again = _search(bench, store, photos, without=without)
        if again.error is not None:
            return [f"I4: the rerun failed: {again.error}"]
        if again.value is None:
            break
    fresh = work / "fresh"
    shutil.copytree(bench.base / "empty", fresh)
    undisturbed = _search(bench, fresh, photos)
    assert undisturbed.error is None, undisturbed.error
    wanted = next(iter(sorted(fresh.glob("versions/*/manifest.json")))).read_text()
    content = wanted.split('"content_sha256": "')[1][:64]
    return problems_of_store(store, before=before) + problems_of_content(store, content)


def _search(bench: Bench, store: Path, photos: Path, *, without: Sequence[str] = ()) -> Any:
    def searched() -> Any:
        remove_guards(without)
        return build(str(store), str(photos), bench.stored, search=True)

    return fork(searched).wait()


def _rewrite(paths: list[Path], seed: int) -> None:
    """In place, piece by piece, now one photo's bytes and now another's, until killed."""
    draw = random.Random(seed)
    contents = [path.read_bytes() for path in paths]
    parent = os.getppid()
    while os.getppid() == parent:
        path, data = draw.choice(paths), draw.choice(contents)
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(data), 2048):
                file.write(data[at : at + 2048])
        time.sleep(draw.random() * 0.02)


FAULT = Fault(
    name="changing_photos",
    title="photos that change while they are read",
    how="another process rewrites three photos in place while a build lists, reads and searches them with the real detector",
    guard="a photo is known by its name alone, whatever its size and time",
    keys=_keys,
    run=_run,
    twin=_twin,
)
