"""Photos and shards from S3 against the local disk, side by side in one run.

The endpoint is our own in a process of its own on loopback, each answer late by `--delay-ms`, as over a network. Photos are read as
`find_faces` reads them, by 16 threads; shards and the index as every step reads them.

    python -m benchmarks.s3 [--photos 400] [--photo-kb 60] [--delay-ms 0 20] [--rounds 5] [--quick] [--json]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from store.sources import list_source, read_uri
from store.storage import Storage

__all__ = ["main", "measure"]

_READERS = 16
_SUFFIXES = frozenset({".jpg"})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--photo-kb", type=int, default=60)
    parser.add_argument("--shard-mb", type=int, default=16)
    parser.add_argument("--large-mb", type=int, default=128)
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[0.0, 20.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.photos, asked.rounds, asked.shard_mb, asked.large_mb = 64, 2, 2, 12
    machine = describe_machine()
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n", file=sys.stderr)
    rows = measure(
        photos=asked.photos,
        photo_bytes=asked.photo_kb * 1000,
        shard_bytes=asked.shard_mb * 2**20,
        large_bytes=asked.large_mb * 2**20,
        delays_ms=asked.delay_ms,
        rounds=asked.rounds,
    )
    for row in rows:
        print(
            f"{row['where']:>12}  {row['what']:<22} {row['mb_a_second']:8.1f} MB/s  "
            f"({row['slowest']:.1f} to {row['fastest']:.1f})  {row['of_local']:5.2f} of the disk",
            file=sys.stderr,
        )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory of this process at its peak: {peak_mib:.0f} MiB", file=sys.stderr)
    if asked.json:
        print(json.dumps({"rows": rows, "peak_mib": round(peak_mib), "machine": machine}))


def measure(
    *, photos: int, photo_bytes: int, shard_bytes: int, large_bytes: int, delays_ms: list[float], rounds: int
) -> list[dict[str, Any]]:
    """A row a place and kind of read: MB/s as median, slowest and fastest round, and the median's share of the disk's."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = [("disk", f"{folder}/disk", None), *((f"S3 +{d:g} ms", "s3://faces/bench", d) for d in delays_ms)]
        for where, uri, delay_ms in places:
            with _endpoint(delay_ms):
                _fill(Storage(uri), photos, photo_bytes, shard_bytes, large_bytes)
                for what, size, read in _reads(uri, photos, photo_bytes, shard_bytes, large_bytes, Path(folder)):
                    read()
                    speeds = sorted(size / 1e6 / _seconds(read) for _ in range(rounds))
                    rows.append(
                        {
                            "where": where,
                            "what": what,
                            "mb_a_second": statistics.median(speeds),
                            "slowest": speeds[0],
                            "fastest": speeds[-1],
                        }
                    )
    local = {row["what"]: row["mb_a_second"] for row in rows if row["where"] == "disk"}
    return [row | {"of_local": row["mb_a_second"] / local[row["what"]]} for row in rows]


def _fill(storage: Storage, photos: int, photo_bytes: int, shard_bytes: int, large_bytes: int) -> None:
    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(lambda n: storage.write(f"in/{n:05d}.jpg", os.urandom(photo_bytes)), range(photos)))
        list(pool.map(lambda n: storage.write(f"shards/{n}", os.urandom(shard_bytes)), range(4)))
    storage.write("large", os.urandom(large_bytes))


def _reads(
    uri: str, photos: int, photo_bytes: int, shard_bytes: int, large_bytes: int, folder: Path
) -> Iterator[tuple[str, int, Callable[[], object]]]:
    storage = Storage(uri)
    listed = [photo.uri for photo in list_source(f"{uri}/in", suffixes=_SUFFIXES).photos]

    def photos_by(readers: int) -> Callable[[], object]:
        def read() -> None:
            with ThreadPoolExecutor(readers) as pool:
                assert (
                    sum(pool.map(lambda one: len(read_uri(one, max_bytes=photo_bytes)), listed)) == photos * photo_bytes
                )

        return read

    yield "photos, 1 reader", photos * photo_bytes, photos_by(1)
    yield f"photos, {_READERS} readers", photos * photo_bytes, photos_by(_READERS)
    yield "shards, one by one", 4 * shard_bytes, lambda: [storage.read(f"shards/{n}") for n in range(4)]
    yield "a large file, down", large_bytes, lambda: storage.download("large", folder / "down")
    yield "a large file, up", large_bytes, lambda: storage.upload("again", folder / "down")


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _endpoint(delay_ms: float | None) -> Iterator[None]:
    """Our own endpoint in a process of its own, named by the environment; none for the disk."""
    if delay_ms is None:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.faults.s3_endpoint", "--delay-s", str(delay_ms / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as endpoint:
        try:
            assert endpoint.stdout is not None
            os.environ |= {
                "AWS_ENDPOINT_URL": endpoint.stdout.readline().strip(),
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            yield
        finally:
            endpoint.terminate()


if __name__ == "__main__":
    main()
