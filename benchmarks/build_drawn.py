"""The command `lookalike build` on a folder of drawn faces, from the listing to the published version: which index it picks, and why.

    python -m benchmarks.build_drawn [--faces 1000000] [--workers N] [--json]

A folder gets an empty file for each face. A store gets their shards, as a detector and an encoder would have committed them that found
one face in each, with embeddings drawn like real ones (benchmarks/face_vectors.py). Then the command itself runs, under Prefect: it lists the
folder, finds every shard done, trains the index, has its faces coded by mapped tasks, asks the gate's queries and publishes. Then 1 %
more photos come the same way, and the command runs again. Held-out
queries are other photos of the drawn people, for there are no crops in the store that could be changed and embedded again. Takes 5 KB of disk a face.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from app.cli import main as lookalike
from benchmarks.drawn_queries import drawn_queries
from benchmarks.face_vectors import FaceVectors
from benchmarks.incremental import commit_drawn
from benchmarks.machine import describe_machine
from benchmarks.serve import drawing
from store.encoders import promote_encoder
from store.layout import open_store
from tasks.steps.contract import Contract
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import discard_plan, plan_build
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder

__all__ = ["main"]

_DIMENSION = 512
_SHARD_PHOTOS = 8_192
_A_FOLDER = 1_000


def main() -> None:
    """Draw, build, and print what the command said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2, help="that code the faces")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        photos, store = Path(folder, "photos"), str(Path(folder, "store"))
        new_encoder(store, settings=NetworkSettings(width=0.125, dimension=_DIMENSION, input_px=80))
        promote_encoder(open_store(store), open_store(store).names("encoders")[0])
        builds = []
        for faces in (args.faces, args.faces + args.faces // 100):
            _draw(photos, store, faces)
            with drawn_queries(FaceVectors(args.faces, _DIMENSION, seed=args.faces)):
                builds.append(_build(photos, store, args.workers))
    for told in builds:
        index = told["index"]
        print(f"{told['faces']:,} faces: {index['key']}, recall@10 {index['recall_at_10']:.3f}\n  {index['why']}")
        print("seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in told["seconds"].items()))
    machine = describe_machine()
    print(f"machine: {machine}")
    if args.json:
        print(json.dumps({"machine": machine, "build": builds[0], "one_percent_more": builds[1]}))


def _draw(photos: Path, store: str, faces: int) -> None:
    """A folder of empty files, and a store in which their faces are found and embedded already."""
    for number in range(faces):
        some = photos / f"{number // _A_FOLDER:06}"
        if number % _A_FOLDER == 0:
            some.mkdir(parents=True, exist_ok=True)
        if not (photo := some / f"{number:09}.jpg").exists():
            photo.touch()
    storage = open_store(store)
    encoder = resolve_encoder(None, store=store)
    listed = list_photos(str(photos), store=store)
    plan = plan_build(listed, store=store, contract=Contract(), encoder=encoder.id, shard_photos=_SHARD_PHOTOS)
    commit_drawn(storage, plan, encoder, draw=drawing(faces, encoder.dimension))
    discard_plan(plan, store=store)


def _build(photos: Path, store: str, workers: int) -> dict[str, Any]:
    """What the command says; seconds of all of it beside those of its stages."""
    said, started = io.StringIO(), time.perf_counter()
    command = [
        "build",
        str(photos),
        "--store",
        store,
        "--shard-photos",
        str(_SHARD_PHOTOS),
        "--workers",
        str(workers),
        "--json",
    ]
    with contextlib.redirect_stdout(said):
        code = lookalike(command)
    if code:
        raise SystemExit(said.getvalue()[-2000:])
    told: dict[str, Any] = json.loads(said.getvalue().strip().rsplit("\n", 1)[-1])
    told["seconds"]["all"] = round(time.perf_counter() - started, 1)
    return told


if __name__ == "__main__":
    main()
