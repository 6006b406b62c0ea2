"""One worker and two, on this machine and on a Dask cluster, against processes that know nothing of each other, in one run.

    python -m benchmarks.workers --photos DIR [--count N] [--shard-photos N] [--json]

1. Shares: seconds of a build's stages align and embed, against those of one process and of two that share the same shards, call the same
   steps, and know neither Prefect nor each other; from the first to the last, start and imports included on both sides.
2. Prefect's part: the same shards through the same supervised children without Prefect, and what a build does outside its stages.
3. One answer: the content hash of every build, which must be the same.
4. Rows in Prefect's database, of two builds of the same photos with few and with many shards; what a million photos make of it.

Every build is `lookalike build` as it is typed, with a Prefect server of this benchmark's own. Each thread of Dask's workers has a child.
"""

import argparse
import contextlib
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.build import store_with_encoder
from benchmarks.machine import describe_machine
from store.encoders import encoder_in_use
from store.layout import open_store
from store.refs import ArtifactRef
from tasks.steps.children import children, run_in_child
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import find_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import plan_build
from tasks.steps.resolve_encoder import EncoderRef, resolve_encoder
from tasks.steps.wall import run_behind_wall

__all__ = ["main", "measure"]

Row = dict[str, Any]
_BIN = Path(sys.executable).parent
_USUAL_SHARD = 256
_MILLION = 1_000_000


def measure(photos: Path, *, count: int, shard_photos: int, rows_of: int) -> Row:
    """The figures, by name."""
    paths = sorted(path.resolve() for path in photos.rglob("*.jpg"))
    chosen = sorted(random.Random(0).sample(paths, min(count, len(paths))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listing, few = folder / "photos.txt", folder / "few.txt"
        listing.write_text("".join(f"{path}\n" for path in chosen))
        few.write_text("".join(f"{path}\n" for path in chosen[:rows_of]))
        with _prefect(folder) as api:
            result: Row = {"photos": len(chosen)} | _shares(listing, shard_photos, api=api, folder=folder)
            result["database"] = _rows(few, rows_of, api=api, folder=folder)
    return result


# 1 to 3


def _shares(listing: Path, shard_photos: int, *, api: str, folder: Path) -> Row:
    seconds: Row = {}
    builds: dict[str, Row] = {}
    for workers in (1, 2):
        seconds[f"{workers} alone"] = _alone(listing, shard_photos, processes=workers, folder=folder)
        builds[f"{workers} local"] = _build(
            listing, shard_photos, api=api, folder=folder, options=["--workers", str(workers)]
        )
        with _dask(workers, api=api, folder=folder) as address:
            options = ["--cluster", f"dask://{address}"]
            builds[f"{workers} dask"] = _build(listing, shard_photos, api=api, folder=folder, options=options)
    seconds |= {name: build["computing"] for name, build in builds.items()}
    two = builds["2 local"]
    without = _without_prefect(listing, shard_photos, workers=2, folder=folder)
    hashes = {build["content_sha256"] for build in builds.values()}
    if len(hashes) != 1:
        raise SystemExit(f"the builds differ: {builds}")
    shares = {
        f"{workers} {kind}": round(seconds[f"{workers} alone"] / seconds[f"{workers} {kind}"], 3)
        for workers in (1, 2)
        for kind in ("local", "dask")
    }
    prefect = {
        "stages_s": round(two["computing"], 1),
        "same_children_without_prefect_s": round(without, 1),
        "outside_stages_s": round(two["wall"] - two["stages"], 1),
    }
    return {
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "share_of_processes_alone": shares,
        "prefect": prefect,
        "content_sha256": hashes.pop(),
    }


def _store(folder: Path) -> str:
    store = Path(tempfile.mkdtemp(prefix="store-", dir=folder)) / "store"
    store_with_encoder(store)
    return str(store)


def _build(listing: Path, shard_photos: int, *, api: str, folder: Path, options: list[str]) -> Row:
    command = [str(_BIN / "lookalike"), "build", str(listing), "--store", _store(folder), "--json"]
    command += ["--shard-photos", str(shard_photos), *options]
    env = os.environ | {"PREFECT_API_URL": api, "PREFECT_HOME": str(folder / "client")}
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    stages = told["seconds"]
    return {
        "computing": stages["align"] + stages["embed"],
        "stages": stages["total"],
        "wall": wall,
        "content_sha256": told["content_sha256"],
        "shards": told["shards"]["computed"],
    }


def _requests(store: str, listing: Path, shard_photos: int) -> tuple[list[ArtifactRef], EncoderRef]:
    encoder = resolve_encoder(encoder_in_use(open_store(store)), store=store)
    listed = list_photos(str(listing), store=store)
    plan = plan_build(listed, store=store, contract=Contract(), encoder=encoder.id, shard_photos=shard_photos)
    return list(plan.requests), encoder


def _alone(listing: Path, shard_photos: int, *, processes: int, folder: Path) -> float:
    """Seconds until the last of these processes has computed its part of the shards."""
    store = _store(folder)
    requests, _ = _requests(store, listing, shard_photos)
    parts = [requests[n::processes] for n in range(processes)]
    started = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, "-m", "benchmarks.workers", "--alone", store, *map(_written, part)])
        for part in parts
    ]
    if sum(abs(process.wait()) for process in running):
        raise SystemExit("a process of its own failed")
    return time.perf_counter() - started


def _written(ref: ArtifactRef) -> str:
    return f"{ref.uri}|{ref.sha256}|{ref.rows}"


def _compute(store: str, written: list[str]) -> None:
    """What one process of its own does."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    encoder = resolve_encoder(None, store=store)
    found = []
    for text in written:
        uri, sha256, rows = text.rsplit("|", 2)
        request = ArtifactRef(uri=uri, sha256=sha256, rows=int(rows))
        found.append(find_faces(request, store=store, contract=Contract()))
    for one in found:
        embed_faces(one, store=store, contract=Contract().id, encoder=encoder)


def _without_prefect(listing: Path, shard_photos: int, *, workers: int, folder: Path) -> float:
    """Seconds of the two stages as a build's children compute them, mapped by a plain pool of threads."""
    store = _store(folder)
    requests, encoder = _requests(store, listing, shard_photos)
    contract = Contract()
    started = time.perf_counter()
    with children(workers), ThreadPoolExecutor(workers) as threads:
        found = list(
            threads.map(lambda one: run_behind_wall(find_faces, one, store=store, contract=contract), requests)
        )
        embed = lambda one: run_in_child(embed_faces, one, store=store, contract=contract.id, encoder=encoder)  # noqa: E731
        list(threads.map(embed, found))
    return time.perf_counter() - started


# 4


def _rows(listing: Path, count: int, *, api: str, folder: Path) -> Row:
    """Rows that a shard adds, from builds of the same photos in few and in many shards."""
    database = folder / "server" / "prefect.db"
    made, shards = [], []
    for shard_photos in (max(1, count // 4), max(1, count // 32)):
        before = _count(database)
        built = _build(listing, shard_photos, api=api, folder=folder, options=[])
        _settle(database)
        after = _count(database)
        made.append({table: after[table] - before.get(table, 0) for table in after})
        shards.append(built["shards"])
    added = {
        table: (made[1][table] - made[0].get(table, 0)) / (shards[1] - shards[0]) for table in made[1] if made[1][table]
    }
    a_shard = {table: round(rows, 2) for table, rows in added.items() if rows > 0.05}
    wanted = -(-_MILLION // _USUAL_SHARD)
    total = round(sum(max(0.0, rows) for rows in added.values()) * wanted)
    return {
        "shards": shards,
        "rows_a_shard": a_shard,
        "shards_of_a_million_photos": wanted,
        "rows_of_a_million_photos": total,
    }


def _settle(database: Path) -> None:
    """Events and log lines are written a little later: wait until nothing more comes."""
    last: dict[str, int] = {}
    for _ in range(20):
        time.sleep(3)
        now = _count(database)
        if now == last:
            return
        last = now


def _count(database: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return {name: connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in tables}


# Servers


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _prefect(folder: Path) -> Iterator[str]:
    port = _port()
    api = f"http://127.0.0.1:{port}/api"
    env = os.environ | {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_HOME": str(folder / "server")}
    with _running(folder / "server.txt", str(_BIN / "prefect"), "server", "start", env=env):
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=2):
                break
            if time.monotonic() > deadline:
                raise SystemExit((folder / "server.txt").read_text()[-2000:])
            time.sleep(0.5)
        yield api


@contextlib.contextmanager
def _dask(workers: int, *, api: str, folder: Path) -> Iterator[str]:
    """Host and port of a scheduler with so many workers of one thread."""
    port = str(_port())
    env = os.environ | {"PREFECT_API_URL": api, "PREFECT_HOME": str(folder / "client")}
    dask = str(_BIN / "dask")
    scheduler = [dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-jupyter"]
    worker = [dask, "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard"]
    worker += ["--local-directory", str(folder)]
    with contextlib.ExitStack() as stack:
        for n, command in enumerate([scheduler, *[worker] * workers]):
            stack.enter_context(_running(folder / f"dask-{n}.txt", *command, env=env))
        _wait_for_workers(port, workers)
        yield f"127.0.0.1:{port}"


def _wait_for_workers(port: str, workers: int) -> None:
    from distributed import Client  # noqa: PLC0415

    connect: Callable[..., Any] = Client
    with connect(f"tcp://127.0.0.1:{port}", timeout=60) as client:
        client.wait_for_workers(workers, timeout=60)


@contextlib.contextmanager
def _running(log: Path, *command: str, env: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    """Measure, print, and with --json give one object on the last line."""
    if sys.argv[1:2] == ["--alone"]:
        _compute(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--shard-photos", type=int, default=64)
    parser.add_argument("--rows-of", type=int, default=64, help="photos of the builds whose rows are counted")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(args.photos, count=args.count, shard_photos=args.shard_photos, rows_of=args.rows_of)
    result |= {"machine": describe_machine()}
    for name, value in result.items():
        print(f"{name:<24} {json.dumps(value)}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
