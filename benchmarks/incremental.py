"""What a build costs when little or nothing is new, against building everything.

    python -m benchmarks.incremental --photos DIR [--encoder FILE.onnx] [--count 2000] [--quick] [--json]

First with real photos and the real command: a full build, one with nothing new, one with 1 % new photos; the seconds are the
flow's own, from its first line to its last. Then a table over the size of the store, with the detector replaced by stored rows:
seconds and peak memory, each in a process of its own, of planning and of writing, checking and publishing a version.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.machine import describe_machine
from store.encoders import promote_encoder
from store.fingerprints import face_id, sha256_hex
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import FACES, LISTING, PHOTOS, embeddings_schema, from_parquet, to_parquet
from store.shards import commit_embeddings, commit_shard
from store.storage import Storage
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.find_faces import shard_of
from tasks.steps.list_photos import ListedSource
from tasks.steps.plan_build import BuildPlan, plan_build
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import EncoderRef, resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder
from tasks.steps.write_index import write_index

__all__ = ["commit_drawn", "list_drawn", "main", "measure_builds", "measure_sizes"]

Row = dict[str, Any]
_SOURCE = "/drawn"
_CROP_BYTES = 2_000
_SIZES = ((1_000, 512), (10_000, 512), (100_000, 512))
_QUICK_SIZES = ((1_000, 512), (10_000, 512))


def measure_builds(photos: Path, *, count: int, encoder: str | None, rounds: int) -> Row:
    """Seconds of a full build, then of builds with nothing new and with 1 % new, as often as asked; and their ratios."""
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    late = max(1, count // 100)
    if len(paths) < count + rounds * late:
        raise SystemExit(f"{photos}: {len(paths)} photos, wanted {count + rounds * late}; give fewer with --count")
    chosen = random.Random(0).sample(paths, count + rounds * late)
    kinds: dict[str, list[float]] = {"full": [], "none": [], "one_percent": []}
    stages: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder, "photos"), str(Path(folder, "store"))
        source.mkdir()
        identity = encoder or new_encoder(store, settings=NetworkSettings(width=0.25, dimension=128))

        def build(kind: str, more: list[Path], encoder: str | None = None) -> None:
            for path in more:
                os.symlink(path.resolve(), source / path.name)
            stages[kind] = _build(source, store, encoder)
            kinds[kind].append(stages[kind]["total"])

        build("full", chosen[:count], identity)
        for n in range(rounds):
            build("none", [])
            build("one_percent", chosen[count + n * late : count + (n + 1) * late])
    full = kinds["full"][0]
    ratios = {kind: round(statistics.median(kinds[kind]) / full, 4) for kind in ("one_percent", "none")}
    seconds = {kind: [round(s, 2) for s in values] for kind, values in kinds.items()}
    return {"photos": count, "new": late, "seconds": seconds, "last_stages": stages, **ratios}


def _build(source: Path, store: str, encoder: str | None) -> dict[str, float]:
    """Seconds a stage, as the command tells them."""
    command = [sys.executable, "-m", "app.cli", "build", str(source), "--store", store, "--json"]
    done = subprocess.run(
        command + (["--encoder", encoder] if encoder else []), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    seconds: dict[str, float] = result["seconds"]
    return seconds


# Sizes


def measure_sizes(sizes: tuple[tuple[int, int], ...]) -> list[Row]:
    """A row a size of the store."""
    rows = []
    for photos, dimension in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder, "store"))
            encoder = new_encoder(store, settings=NetworkSettings(width=0.25, dimension=dimension))
            promote_encoder(open_store(store), encoder)
            steps = {}
            for name in ("everything", "none", "one_percent"):
                for step in ("plan", "shards", "publish"):
                    if name == "none" and step != "plan":
                        continue
                    steps[f"{name}_{step}"] = _in_child(step, store, name, photos, dimension)
            rows.append({"photos": photos, "dimension": dimension, **steps})
            print(f"  {photos} photos measured", file=sys.stderr)
    return rows


def _in_child(step: str, store: str, name: str, photos: int, dimension: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.incremental", "--step", step, store, name, str(photos), str(dimension)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result: Row = json.loads(done.stdout.strip().rsplit("\n", 1)[-1])
    return result


def _step(step: str, store: str, name: str, photos: int, dimension: int) -> Row:
    """One step in this process: its seconds, and the memory at its peak over that before it."""
    storage, encoder = open_store(store), resolve_encoder(None, store=store)
    listed = list_drawn(storage, photos + (photos // 100 if name == "one_percent" else 0))
    before = _peak_mib()
    started = time.perf_counter()
    plan = plan_build(listed, store=store, contract=Contract(), encoder=encoder.id, may_compact=True)
    if step == "publish":
        started = time.perf_counter()
        draft = write_index(plan, store=store, contract=Contract(), encoder=encoder)
        publish_version(check_version(draft, store=store).draft, store=store, plan=plan)
    seconds = time.perf_counter() - started
    told = {"seconds": round(seconds, 2), "peak_mib": round(_peak_mib()), "before_mib": round(before)}
    if step == "shards":
        commit_drawn(storage, plan, encoder)
    return told


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def list_drawn(storage: Storage, photos: int) -> ListedSource:
    """A listing of photos that nobody has; the new ones lie between the others."""
    numbers = np.arange(photos)
    table = pa.table(
        {
            "uri": pa.array([f"{_SOURCE}/{(n * 7919) % 1_000_003:07}/{n:08}.jpg" for n in numbers]),
            "size": pa.array(50_000 + numbers % 10_000),
            "etag": pa.nulls(photos, pa.string()),
            "mtime_ns": pa.array(1_700_000_000_000_000_000 + numbers),
            "source": pa.array([_SOURCE] * photos),
            "label": pa.nulls(photos, pa.string()),
            "metadata": pa.nulls(photos, pa.string()),
        }
    ).sort_by("uri")
    data = to_parquet(table, LISTING)
    path = f"runs/listings/{photos}.parquet"
    storage.write(path, data)
    ref = ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=photos)
    return ListedSource(source=_SOURCE, listing=ref, ignored=0)


def commit_drawn(
    storage: Storage,
    plan: BuildPlan,
    encoder: EncoderRef,
    *,
    draw: Callable[[int], npt.NDArray[np.float32]] | None = None,
) -> None:
    """Commit a plan's shards as a detector and an encoder would that find one face in every photo.

    Args:
        storage: the store.
        plan: its requests are done.
        encoder: of the embeddings.
        draw: gives so many embeddings; without it they are of random directions, the same ones for the same shard.
    """
    contract = Contract().id
    for request in plan.requests:
        shard = shard_of(request)
        data = storage.read(storage.path_of(request.uri))
        listed = from_parquet(data, LISTING, where=request.uri).to_pylist()
        rng = np.random.default_rng(int(shard[:8], 16))
        photos = [_photo(row) for row in listed]
        faces = [_face(row, rng) for row in photos]
        commit_shard(
            storage,
            contract=contract,
            shard=shard,
            photos=pa.Table.from_pylist(photos, schema=PHOTOS),
            faces=pa.Table.from_pylist(faces, schema=FACES),
        )
        vectors = draw(len(faces)) if draw else _directions(rng, len(faces), encoder.dimension)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), encoder.dimension)
        ids = pa.array([face["face_id"] for face in faces], pa.int64())
        table = pa.Table.from_arrays([ids, flat], schema=embeddings_schema(encoder.dimension))
        commit_embeddings(storage, encoder=encoder.id, shard=shard, table=table, dimension=encoder.dimension)


def _directions(rng: np.random.Generator, count: int, dimension: int) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = rng.standard_normal((count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _photo(row: Row) -> Row:
    return {
        "uri": row["uri"],
        "photo_sha256": sha256_hex(row["uri"].encode()),
        "bytes": row["size"],
        "mtime_ns": row["mtime_ns"],
        "width": 250,
        "height": 250,
        "exif_orientation": 1,
        "rotation_used": 0,
        "status": "indexed",
        "num_faces": 1,
    }


def _face(photo: Row, rng: np.random.Generator) -> Row:
    box = [80.0, 80.0, 170.0, 170.0]
    return {
        "face_id": face_id(photo["photo_sha256"], box),
        "photo_sha256": photo["photo_sha256"],
        "uri": photo["uri"],
        "box": box,
        "landmarks": [100.0] * 10,
        "score": 0.999,
        "quality": 0.5,
        "rotation": 0,
        "crop": rng.bytes(_CROP_BYTES),
        "crop_origin": [35.0, 35.0],
        "crop_scale": 1.0,
    }


# The command


def _print(result: Row) -> None:
    if builds := result.get("builds"):
        print(f"{builds['photos']} real photos, the whole flow, {len(builds['seconds']['none'])} rounds:")
        for kind, seconds in builds["seconds"].items():
            share = "" if kind == "full" else f"  {100 * builds[kind]:.1f} % of the full build"
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            print(f"  {kind:12} {statistics.median(seconds):8.1f} s ({spread}){share}")
    print("store size: seconds (peak MiB) of planning with nothing new, with 1 % new, and of publishing that")
    for row in result["sizes"]:
        cells = [row[name] for name in ("none_plan", "one_percent_plan", "one_percent_publish")]
        told = "  ".join(f"{cell['seconds']:7.2f} s ({cell['peak_mib']:5} MiB)" for cell in cells)
        print(f"  {row['photos']:>9,} x {row['dimension']:<3}  {told}")


def main() -> None:
    """Measure, print, and with --json give one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of real photos; without it only the table is measured")
    parser.add_argument("--encoder", help="of the real builds; by default a small untrained one")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--step", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step, store, name, photos, dimension = args.step
        print(json.dumps(_step(step, store, name, int(photos), int(dimension))))
        return
    result: Row = {"machine": describe_machine(), "one_percent": None, "none": None}
    if args.photos:
        count, rounds = (200, 2) if args.quick else (args.count, args.rounds)
        builds = measure_builds(args.photos, count=count, encoder=args.encoder, rounds=rounds)
        result |= {"builds": builds, "one_percent": builds["one_percent"], "none": builds["none"]}
    result["sizes"] = measure_sizes(_QUICK_SIZES if args.quick else _SIZES)
    _print(result)
    print(f"machine: {result['machine']}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
