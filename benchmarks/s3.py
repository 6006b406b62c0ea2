"""Photos and shards from S3 against the local disk, side by side in one run.

The endpoint is our own in a process of its own on loopback, each answer late by `--delay-ms`, as over a network. Photos are read as
`find_faces` reads them, by 16 threads, alone and while faces are searched for; shards and the index as every step reads them.

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
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from store.sources import list_source, read_uri
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.draw_people import draw_people
from tasks.steps.find_faces import find_faces
from tasks.steps.list_photos import list_photos

__all__ = ["main", "measure"]

_READERS = 16
_SUFFIXES = frozenset({".jpg"})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--photo-kb", type=int, default=60)
    parser.add_argument("--drawn", type=int, default=96, help="drawn photos that faces are found in")
    parser.add_argument("--shard-mb", type=int, default=16)
    parser.add_argument("--large-mb", type=int, default=128)
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[0.0, 20.0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.quick:
        asked.photos, asked.drawn, asked.rounds, asked.shard_mb, asked.large_mb = 64, 24, 2, 2, 12
    machine = describe_machine()
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n", file=sys.stderr)
    rows = measure(
        photos=asked.photos,
        photo_bytes=asked.photo_kb * 1000,
        drawn=asked.drawn,
        shard_bytes=asked.shard_mb * 2**20,
        large_bytes=asked.large_mb * 2**20,
        delays_ms=asked.delay_ms,
        rounds=asked.rounds,
    )
    for row in rows:
        print(
            f"+{row['delay_ms']:g} ms  {row['what']:<20} {row['unit']:>8}/s: disk {row['disk']:8.1f} "
            f"({row['disk_slowest']:.1f} to {row['disk_fastest']:.1f}), S3 {row['s3']:7.1f} "
            f"({row['s3_slowest']:.1f} to {row['s3_fastest']:.1f}), ratio {row['ratio']:.2f}; peak {row['peak_mib']} MiB",
            file=sys.stderr,
        )
    if asked.json:
        print(json.dumps({"rows": rows, "machine": machine}))


def measure(
    *,
    photos: int,
    photo_bytes: int,
    drawn: int,
    shard_bytes: int,
    large_bytes: int,
    delays_ms: list[float],
    rounds: int,
) -> list[dict[str, Any]]:
    """A row a delay and kind of work: what a second from the disk and from S3, by turns, as median, slowest and fastest round.

    `peak_mib` is the most that this process has held so far.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        people = draw_people(Path(folder) / "people", people=range(drawn // 4), views=range(4), seed=3, workers=1)
        for delay_ms in delays_ms:
            uris = (f"{folder}/disk", "s3://faces/bench")
            with _endpoint(delay_ms):
                for uri in uris:
                    _fill(Storage(uri), photos, photo_bytes, shard_bytes, large_bytes, people)
                works = [
                    _works(uri, photos, photo_bytes, shard_bytes, large_bytes, len(people), folder) for uri in uris
                ]
                rows += [{"delay_ms": delay_ms} | _by_turns(*pair, rounds=rounds) for pair in zip(*works, strict=True)]
    return rows


@dataclass(frozen=True)
class _Work:
    what: str
    unit: str
    amount: float
    do: Callable[[], object]


def _by_turns(disk: _Work, s3: _Work, *, rounds: int) -> dict[str, Any]:
    disk.do()
    s3.do()
    pairs = [(disk.amount / _seconds(disk.do), s3.amount / _seconds(s3.do)) for _ in range(rounds)]
    ours, theirs = (sorted(pair[which] for pair in pairs) for which in (0, 1))
    return {
        "what": disk.what,
        "unit": disk.unit,
        "disk": statistics.median(ours),
        "disk_slowest": ours[0],
        "disk_fastest": ours[-1],
        "s3": statistics.median(theirs),
        "s3_slowest": theirs[0],
        "s3_fastest": theirs[-1],
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _find(uri: str) -> None:
    """List the drawn photos and find their faces, into a store of their own."""
    store = f"{uri}/store-{uuid.uuid4()}"
    listed = list_photos(f"{uri}/people", store=store)
    assert find_faces(listed.listing, store=store, contract=Contract()).computed


def _fill(
    storage: Storage, photos: int, photo_bytes: int, shard_bytes: int, large_bytes: int, people: list[Path]
) -> None:
    with ThreadPoolExecutor(_READERS) as pool:
        list(pool.map(lambda n: storage.write(f"in/{n:05d}.jpg", os.urandom(photo_bytes)), range(photos)))
        list(pool.map(lambda n: storage.write(f"shards/{n}", os.urandom(shard_bytes)), range(4)))
    storage.write("large", os.urandom(large_bytes))
    for picture in people:
        storage.upload(f"people/{picture.parent.name}-{picture.name}", picture)


def _works(
    uri: str, photos: int, photo_bytes: int, shard_bytes: int, large_bytes: int, people: int, folder: str
) -> list[_Work]:
    storage = Storage(uri)
    down = Path(folder) / "down"
    listed = [photo.uri for photo in list_source(f"{uri}/in", suffixes=_SUFFIXES).photos]

    def read(readers: int) -> None:
        with ThreadPoolExecutor(readers) as pool:
            assert sum(pool.map(lambda one: len(read_uri(one, max_bytes=photo_bytes)), listed)) == photos * photo_bytes

    return [
        _Work("photos, 1 reader", "photos", photos, partial(read, 1)),
        _Work(f"photos, {_READERS} readers", "photos", photos, partial(read, _READERS)),
        _Work(
            "shards, one by one", "MB", 4 * shard_bytes / 1e6, lambda: [storage.read(f"shards/{n}") for n in range(4)]
        ),
        _Work("a large file, down", "MB", large_bytes / 1e6, lambda: storage.download("large", down)),
        _Work("a large file, up", "MB", large_bytes / 1e6, lambda: storage.upload("again", down)),
        _Work("photos, faces found", "photos", people, partial(_find, uri)),
    ]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _endpoint(delay_ms: float) -> Iterator[None]:
    """Our own endpoint in a process of its own, named by the environment."""
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
