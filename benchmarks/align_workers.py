"""Part of `align`: two workers of a build against two processes that know nothing of each other.

python -m benchmarks.align_workers STORE SHARD...    one such process; it waits for a line before it starts
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from store.layout import open_store
from store.refs import ArtifactRef
from tasks.steps.children import children
from tasks.steps.contract import Contract
from tasks.steps.find_faces import find_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.wall import run_behind_wall

__all__ = ["compare_workers", "main"]

_SHARDS, _SHARD_PHOTOS, _ROUNDS = 8, 96, 3


def compare_workers(paths: Sequence[Path]) -> dict[str, Any]:
    """Wall seconds of both, and the share of the independent processes' throughput that a build's workers reach."""
    pooled, alone = [], []
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            pooled.append(_pooled(Path(folder), paths))
        with tempfile.TemporaryDirectory() as folder:
            alone.append(_alone(Path(folder), paths))
    return {
        "photos": _SHARDS * _SHARD_PHOTOS,
        "two_workers_s": [round(s, 2) for s in pooled],
        "two_processes_s": [round(s, 2) for s in alone],
        "share": round(statistics.median(alone) / statistics.median(pooled), 3),
    }


def _requests(folder: Path, paths: Sequence[Path]) -> tuple[str, list[ArtifactRef]]:
    """A new store, and ten shards to compute: two to warm up with, eight to time."""
    store = str(folder / "store")
    requests: list[ArtifactRef] = []
    for number in range(_SHARDS + 2):
        listing = folder / f"{number}.txt"
        first = number * _SHARD_PHOTOS % max(1, len(paths) - _SHARD_PHOTOS)
        chosen = paths[first : first + (_SHARD_PHOTOS if number >= 2 else 8)]
        listing.write_text("".join(f"{path.resolve()}\n" for path in chosen))
        plan = plan_build(
            list_photos(str(listing), store=store), store=store, contract=Contract(), encoder=None, shard_photos=10_000
        )
        requests += plan.requests
    return store, requests


def _pooled(folder: Path, paths: Sequence[Path]) -> float:
    store, requests = _requests(folder, paths)

    def one(request: ArtifactRef) -> None:
        run_behind_wall(find_faces, request, store=store, contract=Contract())

    with children(2), ThreadPoolExecutor(2) as threads:
        list(threads.map(one, requests[:2]))
        started = time.perf_counter()
        list(threads.map(one, requests[2:]))
        return time.perf_counter() - started


def _alone(folder: Path, paths: Sequence[Path]) -> float:
    store, requests = _requests(folder, paths)
    processes = []
    for half in (0, 1):
        listed = [f"{r.uri}|{r.sha256}|{r.rows}" for r in (requests[half], *requests[2 + half :: 2])]
        command = [sys.executable, "-m", "benchmarks.align_workers", store, *listed]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    started = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    seconds = time.perf_counter() - started
    for process in processes:
        process.communicate(timeout=60)
    return seconds


def main() -> None:
    """One process on its own: warm up, say so, wait for a line, compute the shards, say so."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    store, *listed = sys.argv[1:]
    open_store(store)
    requests = []
    for text in listed:
        uri, sha256, rows = text.rsplit("|", 2)
        requests.append(ArtifactRef(uri=uri, sha256=sha256, rows=int(rows)))
    find_faces(requests[0], store=store, contract=Contract())
    print("warm", flush=True)
    sys.stdin.readline()
    for request in requests[1:]:
        find_faces(request, store=store, contract=Contract())
    print("done", flush=True)


if __name__ == "__main__":
    main()
