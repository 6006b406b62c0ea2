"""A full disk: too few bytes, or too few inodes, at every step of a build."""

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, SkippedError, sample
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import snapshot

__all__ = ["FAULT", "PLENTY", "PLENTY_OF", "STEP", "mount", "mounted", "taken"]

STEP = 4096
"""Bytes of a page, in which a tmpfs is sized."""

PLENTY_OF = (64 << 20, 4096)
"""Bytes and inodes of a disk with room for everything."""

PLENTY = f"size={PLENTY_OF[0]},nr_inodes={PLENTY_OF[1]}"
"""The same as options of mount."""


def _keys(bench: Bench, long: bool) -> list[str]:
    """A disk of each size between what the store takes and what its build takes at its peak, in steps of 4 KiB."""
    found = []
    for name in STORES:
        least, most = _needed(bench, name)
        found += [f"{name}:size:{size}" for size in range(max(STEP, least[0]), most[0] + STEP, STEP)]
        found += [f"{name}:nr_inodes:{count}" for count in range(least[1], most[1] + 1)]
    return found if long else sample(found, 12, seed=3)


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """Build on a disk of that size; then there is room again."""
    name, limit, value = key.split(":")
    with mounted(bench, PLENTY) as disk, bench.fresh_store(name, under=disk) as store:
        before = snapshot(store)
        mount("-o", f"remount,{limit}={value}", str(disk))
        bench.build(store, without=without)
        mount("-o", f"remount,{PLENTY}", str(disk))
        return bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Writes that report success on a full disk, on smaller and smaller disks."""
    _, most = _needed(bench, "empty")
    for size in range(most[0], 0, -STEP):
        if problems := _run(bench, f"empty:size:{size}", without=["write_errors", "readback", "hash"]):
            return problems
    return []


def _needed(bench: Bench, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes and inodes that the store takes, and that it takes at most while it is built."""
    with mounted(bench, PLENTY) as disk, bench.fresh_store(name, under=disk) as store:
        least = taken(disk)
        child = bench.start_build(store, prepare=lambda: _watch(disk))
        ended = child.wait()
        assert ended.error is None, ended.error
        most = [int(value) for value in (disk / "most").read_text().split()]
        return least, (max(most[0], taken(disk)[0]) + 4 * STEP, max(most[1], taken(disk)[1]) + 2)


def _watch(disk: Path) -> None:
    """Note the most that is taken, looked at whenever a file has been flushed."""
    fsync, most = os.fsync, [0, 0]

    def looking(descriptor: int) -> None:
        fsync(descriptor)
        most[:] = map(max, most, taken(disk))
        (disk / "most").write_text(f"{most[0]} {most[1]}")

    setattr(os, "fsync", looking)  # noqa: B010


def taken(disk: Path) -> tuple[int, int]:
    """Bytes and inodes that are in use."""
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize, state.f_files - state.f_ffree


@contextmanager
def mounted(bench: Bench, options: str) -> Iterator[Path]:
    """A tmpfs of its own, gone afterwards.

    Raises:
        SkippedError: this system forbids mounting.
    """
    disk = bench.work / "disks" / uuid.uuid4().hex
    disk.mkdir(parents=True)
    try:
        mount("-t", "tmpfs", "-o", options, "tmpfs", str(disk))
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True, capture_output=True)
    finally:
        disk.rmdir()


def mount(*args: str) -> None:
    """Call `mount`.

    Raises:
        SkippedError: it is not there, or may not.
    """
    try:
        subprocess.run(["mount", *args], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise SkippedError("mount is not installed") from error
    except subprocess.CalledProcessError as error:
        raise SkippedError(
            f"this system forbids mounting ({error.stderr.decode(errors='replace').splitlines()[0]})"
        ) from error


FAULT = Fault(
    name="disk_full",
    title="disk full",
    how="a tmpfs of every size, in steps of 4 KiB, and of every number of inodes between the store's and its build's peak",
    guard="a write that fails reports success, and nothing is read back or compared with its hash",
    keys=_keys,
    run=_run,
    twin=_twin,
    warm=False,
)
