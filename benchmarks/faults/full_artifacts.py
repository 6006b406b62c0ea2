"""A disk that becomes full within one artifact: at each page of its last 64 KiB, and at each inode that it needs."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.faults.bench import STORES, Bench, sample
from benchmarks.faults.disk_full import PLENTY, PLENTY_OF, STEP, mount, mounted, taken
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import snapshot

__all__ = ["FAULT"]

_LAST = 64 << 10
_NAMED = {
    "index.faiss",
    "photos.parquet",
    "faces.parquet",
    "draft.json",
    "report.html",
    "manifest.json",
    "claim",
    "CURRENT",
}


def _keys(bench: Bench, long: bool) -> list[str]:
    """Of every file that a build writes, links or swaps, in their order: 4 KiB, 8 KiB, … too little room, and 1 or 2 inodes."""
    found = []
    for name in STORES:
        for nth, (kind, size) in enumerate(_artifacts(bench.work, name), start=1):
            pages = -(-size // STEP)
            free = range(max(0, pages - _LAST // STEP), pages)
            found += [f"{name}:{nth}:{kind}:size:{room}" for room in free]
            found += [f"{name}:{nth}:{kind}:nr_inodes:{room}" for room in range(2)]
    return found if long else sample(found, 14, seed=8)


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Leave that much room as the artifact is begun; the build fails or does without; then there is room again."""
    name, nth, _, limit, room = key.split(":")
    with mounted(bench, PLENTY) as disk, bench.fresh_store(name, under=disk) as store:
        before = snapshot(store)
        bench.start_build(
            store, without=without, prepare=lambda: _at(int(nth), lambda: _leave(disk, limit, int(room)))
        ).wait()
        left_as_it_was = _room(disk) == PLENTY_OF
        mount("-o", f"remount,{PLENTY}", str(disk))
        return ["the artifact was never begun"] * left_as_it_was + bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Writes that report success on a full disk, at the one artifact after which nothing is looked at again."""
    for key in _keys(bench, True):
        wanted = key.startswith("empty:") and ":versions/manifest.json:size:" in key
        if wanted and (problems := _run(bench, key, without=["write_errors", "readback", "hash"])):
            return problems
    return []


@lru_cache(maxsize=4)
def _artifacts(work: Path, name: str) -> list[tuple[str, int]]:
    """What it is and how many bytes are new, of everything that a build puts in place."""
    bench, found = Bench(work), work / f"artifacts-{name}"
    found.unlink(missing_ok=True)

    def note(path: str, size: int) -> None:
        with found.open("a") as file:
            file.write(f"{_kind(path)} {size}\n")

    with bench.fresh_store(name) as store:
        ended = bench.start_build(store, prepare=lambda: _tell(note)).wait()
    assert ended.error is None, ended.error
    return [(kind, int(size)) for kind, size in (line.split() for line in found.read_text().splitlines())]


def _kind(path: str) -> str:
    """Where it lies, without what differs from build to build."""
    first, *_, last = path.split("/")
    return f"{first}/{last}" if last in _NAMED else first


def _at(nth: int, reached: Callable[[], None]) -> None:
    """Call `reached` before the n-th artifact is begun, in this process for good."""
    begun = [0]

    def count(*_: Any) -> None:
        begun[0] += 1
        if begun[0] == nth:
            reached()

    _tell(count)


def _tell(tell: Callable[[str, int], None]) -> None:
    """Call `tell` with path and new bytes of each artifact before it is begun, in this process for good."""
    from store.local_files import LocalFiles  # noqa: PLC0415

    write, create, copy, upload = LocalFiles.write, LocalFiles.create, LocalFiles.copy, LocalFiles.upload

    def telling_write(self: LocalFiles, path: str, data: bytes) -> None:
        tell(path, len(data))
        write(self, path, data)

    def telling_create(self: LocalFiles, path: str, data: bytes) -> bool:
        tell(path, len(data))
        return create(self, path, data)

    def telling_copy(self: LocalFiles, source: str, target: str) -> None:
        tell(target, 0)  # a hard link
        copy(self, source, target)

    def telling_upload(self: LocalFiles, path: str, source: Path) -> None:
        tell(path, source.stat().st_size)
        upload(self, path, source)

    tellings = {"write": telling_write, "create": telling_create, "copy": telling_copy, "upload": telling_upload}
    for name, telling in tellings.items():
        setattr(LocalFiles, name, telling)


def _leave(disk: Path, limit: str, room: int) -> None:
    size, inodes = taken(disk)
    now = {"size": size + room * STEP, "nr_inodes": inodes + room}[limit]
    mount("-o", f"remount,{limit}={now}", str(disk))


def _room(disk: Path) -> tuple[int, int]:
    state = os.statvfs(disk)
    return state.f_blocks * state.f_frsize, state.f_files


FAULT = Fault(
    name="full_artifacts",
    title="disk full within each artifact",
    how="as a build begins an artifact (a shard's photos, faces with crops, embeddings; index, tables, manifest, CURRENT; its own"
    " lists), its tmpfs is made to end at each 4 KiB step over the artifact's last 64 KiB, or 0 or 1 inodes on",
    guard="a write that fails reports success, and nothing is read back or compared with its hash",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
