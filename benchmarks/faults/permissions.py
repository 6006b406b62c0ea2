"""A store that may not be written: by another user, or because its file system is mounted read-only."""

import os
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.bench import STORES, Bench, SkippedError
from benchmarks.faults.fault import Fault
from benchmarks.faults.invariants import problems_of_store, snapshot

__all__ = ["FAULT"]

_NOBODY = 65534
_FOLDERS = ("photos", "faces", "embeddings", "versions", "runs")


def _keys(bench: Bench, long: bool) -> list[str]:
    """The whole store by another user and read-only; and each of its folders by another user."""
    whole = [f"{how}:{name}" for how in ("nobody", "read_only") for name in STORES]
    return whole + [f"folder:{folder}" for folder in _FOLDERS]


def _run(bench: Bench, key: str, *, without: Sequence[str] = ()) -> list[str]:
    """The build must end with a sentence and change nothing; allowed again, it runs through."""
    kind, name = key.split(":")
    with bench.fresh_store("second" if kind == "folder" else name) as store:
        before = snapshot(store)
        _warm(bench, store)
        if kind == "read_only":
            ended = _read_only(bench, store, without)
        else:
            if kind == "folder":
                subprocess.run(["chown", "-R", str(_NOBODY), str(store)], check=True)
                subprocess.run(["chown", "-R", "0", str(store / name)], check=True)
            ended = _as_nobody(bench, store, without)
        problems = [f"a build that may not write {name} was done"] * (ended is None)
        if ended is not None and not ended[0] and kind != "folder":
            problems.append(f"it did not end with a sentence: {ended[1]}")
        return problems + problems_of_store(store, before=before) + bench.after(store, before)


def _twin(bench: Bench) -> list[str]:
    """Nobody tries first whether the store can be written."""
    return _run(bench, "nobody:second", without=["probe"])


def _warm(bench: Bench, store: Path) -> None:
    if os.geteuid() != 0:
        raise SkippedError("only root can become another user")


def _as_nobody(bench: Bench, store: Path, without: Sequence[str]) -> tuple[bool, str] | None:
    with bench.fresh_store("empty") as scratch:

        def become_nobody() -> None:
            from benchmarks.faults.bench import build  # noqa: PLC0415

            build(str(scratch), bench.source, bench.stored)  # imports what nobody may not read
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)

        ended = bench.start_build(store, without=without, prepare=become_nobody).wait()
    return None if ended.error is None else (ended.refused, ended.error)


def _read_only(bench: Bench, store: Path, without: Sequence[str]) -> tuple[bool, str] | None:
    at = bench.work / "read_only" / uuid.uuid4().hex
    at.mkdir(parents=True)
    try:
        for options in (["--bind", str(store), str(at)], ["-o", "remount,bind,ro", str(at)]):
            done = subprocess.run(["mount", *options], check=False, capture_output=True)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                raise SkippedError(f"this system forbids mounting ({said})")
        ended = bench.build(at, without=without)
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False, capture_output=True)
        if not os.path.ismount(at):
            at.rmdir()
    return None if ended.error is None else (ended.refused, ended.error)


FAULT = Fault(
    name="permissions",
    title="permissions",
    how="a build as user nobody on root's store or with one folder of root's in it, and on a store mounted read-only",
    guard="nobody tries first whether the store can be written",
    keys=_keys,
    run=_run,
    twin=_twin,
)
