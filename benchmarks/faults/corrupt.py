"""Damaged artifacts: every one must be refused before it is used, and no process may die of it."""

import random
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import Bench
from benchmarks.faults.fault import Fault
from benchmarks.faults.forks import Ended, fork
from benchmarks.faults.guards import remove_guards

__all__ = ["FAULT"]

_DAMAGES = ("flip", "truncate", "zero_tail", "swap")
_NOT_OF_A_VERSION = {"runs", "encoders"}
_NO_HASH = {"manifest.json", "CURRENT"}


def _keys(bench: Bench, long: bool) -> list[str]:
    """Mutations, each with its own file, place and kind."""
    return [str(n) for n in range(10_000 if long else 200)]


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Damage one file of a published version or its shards, read all of it in a child, and mend it."""
    store = _store(bench.work)
    draw = random.Random(int(key))
    parts = [path for path in store.iterdir() if path.name not in _NOT_OF_A_VERSION]
    files = sorted(path for part in parts for path in part.rglob("*") if path.is_file())
    path = draw.choice([p for p in files if p.name != "claim"])
    whole = path.read_bytes()
    kind, damaged = _damaged(whole, path, files, draw)
    if damaged == whole:
        return []
    path.write_bytes(damaged)
    try:
        ended = _read(store, without)
    finally:
        path.write_bytes(whole)
    what = f"{kind} of {path.relative_to(store)}"
    if ended.signal:
        return [f"{what} killed the reader by signal {ended.signal}"]
    if ended.error is not None:
        return [] if ended.refused else [f"{what} was not refused with a sentence: {ended.error}"]
    harmless = ended.value == _undamaged(bench.work)
    return (
        []
        if harmless and _may_be_harmless(path)
        else [f"{what} went unnoticed{'' if harmless else ' and changed the answer'}"]
    )


def _twin(bench: Bench) -> list[str]:
    """Files are used whatever their hash is."""
    for key in range(60):
        if problems := _run(bench, str(key), without=["hash"]):
            return problems
    return []


def _may_be_harmless(path: Path) -> bool:
    """The manifest and CURRENT may differ where it does not matter; any bit of what a manifest names is refused."""
    return path.name in _NO_HASH


def _damaged(whole: bytes, path: Path, files: list[Path], draw: random.Random) -> tuple[str, bytes]:
    kind = draw.choice(_DAMAGES)
    at = draw.randrange(len(whole))
    if kind == "flip":
        return f"bit {at}.{(bit := draw.randrange(8))}", whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    if kind == "truncate":
        return f"end after {at} bytes", whole[:at]
    if kind == "zero_tail":
        return f"zeros after {at} bytes", whole[:at] + bytes(len(whole) - at)
    alike = [other for other in files if other.suffix == path.suffix and other != path] or files
    other = draw.choice(alike)
    return f"{other.name} in place", other.read_bytes()


def _read(store: Path, without: Sequence[str] = ()) -> Ended:
    """Open CURRENT and its shards in a child; its value is a hash of all that was read."""

    def read() -> Any:
        remove_guards(without)
        from benchmarks.faults.reader import read_all  # noqa: PLC0415

        return read_all(str(store))

    return fork(read).wait(60)


@lru_cache(maxsize=1)
def _store(work: Path) -> Path:
    """One store with two versions for all mutations."""
    bench = Bench(work)
    store = work / "mutated"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(bench.base / "second", store)
    built = bench.build(store)
    assert built.error is None, built.error
    shutil.rmtree(store / "versions" / "000001")
    return store


@lru_cache(maxsize=1)
def _undamaged(work: Path) -> Any:
    return _read(_store(work)).value


FAULT = Fault(
    name="corrupt",
    title="corrupt artifacts",
    how="one bit flipped, the end cut off or zeroed, or another file in its place, in one file of a version or its shards;"
    " all of the version is then read in a child",
    guard="bytes are used whatever hash was recorded for them",
    keys=_keys,
    run=_run,
    twin=_twin,
)
