"""Power loss at every moment of a build: the build's real calls, replayed on a disk that keeps only what was flushed."""

import hashlib
import shutil
import uuid
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import problems_of_content, snapshot
from benchmarks.faults.power_model import CALLS, DATA, NAMES, Call, crashed_tree, read_calls, write_tree
from benchmarks.faults.tracing import traced

__all__ = ["FAULT"]


def _keys(bench: Bench, long: bool) -> list[str]:
    """After every call of a build of each store, what was not flushed in every state of DATA and NAMES."""
    found = [
        f"{name}:{count}:{data}:{names}"
        for name in STORES
        for count in range(1, len(_calls(bench, name, ())) + 1)
        for data in DATA
        for names in NAMES
    ]
    return found if long else sample(found, 60, seed=4)


def _run(bench: Bench, key: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """Lay out what is left, check it, and build again; after the last call the version must be there for good."""
    name, last, tree = _left(bench, key, without)
    store = bench.work / "trials" / uuid.uuid4().hex
    write_tree(tree, store)
    try:
        done = problems_of_content(store, bench.expected) if last else []
        return done + bench.after(store, snapshot(bench.base / name))
    finally:
        shutil.rmtree(store)


def _state(bench: Bench, key: str) -> str:
    """Of the store that the build met, of all names and bytes that are left, and of whether the version must be among them."""
    name, last, tree = _left(bench, key, ())
    digest = hashlib.sha256(f"{name}:{last}".encode())
    for path, data in sorted(tree.items()):
        said = "folder" if data is None else hashlib.sha256(data).hexdigest()
        digest.update(f"\0{path}\0{said}".encode())
    return digest.hexdigest()


def _left(bench: Bench, key: str, without: tuple[str, ...]) -> tuple[str, bool, dict[str, bytes | None]]:
    """The store that the build met, whether its last call was made, and what is left on the disk."""
    name, count, data, names = key.split(":")
    calls = _calls(bench, name, without)
    tree = crashed_tree(bench.base / name, calls[: int(count)], data=data, names=names)
    return name, int(count) == len(calls), tree


def _twin(bench: Bench) -> list[str]:
    """A build that flushes nothing, at its end; names come, bytes do not."""
    calls = _calls(bench, "empty", ("fsync",))
    return _run(bench, f"empty:{len(calls)}:dropped:all", without=("fsync",))


@lru_cache(maxsize=8)
def _traced_calls(work: Path, name: str, without: Sequence[str]) -> list[Call]:
    bench = Bench(work)
    log = work / f"power-{name}{''.join(without)}.log"
    with bench.fresh_store(name) as store:
        child = bench.start_build(store, without=without, gated=True)
        with traced(child, log, "-y", "-xx", "-s", str(64 << 20), f"--trace={','.join(CALLS)}"):
            ended = child.wait()
        assert ended.error is None, ended.error
        calls = read_calls(log, store)
    log.unlink()
    return calls


def _calls(bench: Bench, name: str, without: tuple[str, ...]) -> list[Call]:
    return _traced_calls(bench.work, name, without)


FAULT = Fault(
    name="power_loss",
    title="power loss",
    how="strace's log of a build's calls, replayed at all prefixes; bytes not flushed dropped, zeroed, halved, reordered or"
    " kept, names not flushed absent, present or some of them; moments that leave the same files on the disk are tried once",
    guard="nothing is flushed",
    keys=_keys,
    run=_run,
    twin=_twin,
    state=_state,
)
