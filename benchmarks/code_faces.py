"""What it takes to fill a new index: by workers that code a block of faces each, against one process that codes all of them in one pass.

    python -m benchmarks.code_faces [--faces 1000000] [--workers 1 2] [--rounds 3] [--json]

Embeddings of 512 dimensions are drawn (benchmarks/face_vectors.py) and committed as shards of a store. One index is trained on a sample
of them. Then it is filled, in turn, in one pass by this process with all its cores, and by so many children of one core each, whose blocks are merged
here. Both find the held-out queries' nearest along the way, and both files must be the same to the byte. Seconds are medians; a worker's
memory is its peak, libraries and all. What Prefect takes is not in it.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.face_vectors import FaceVectors
from benchmarks.machine import describe_machine
from models.exact_search import NearestFaces
from store.index_choice import kind_for
from store.index_stream import Spool
from store.index_train import sample_size, train_index
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import embeddings_schema
from store.shards import commit_embeddings
from store.storage import Storage
from store.trained_index import read_trained
from tasks.steps.build_anew import TrainedAnew
from tasks.steps.children import children, run_in_child
from tasks.steps.choose_index import ChosenKind, TrainedKind
from tasks.steps.code_faces import CodedBlock, Coder, code_faces, read_kept
from tasks.steps.face_blocks import sample_rows
from tasks.steps.held_out_queries import HELD_OUT
from tasks.steps.held_out_truth import HeldOut
from tasks.steps.measure_index import KEPT
from tasks.steps.plan_coding import CodingPlan, fill_coded, plan_coding
from tasks.steps.stored_faces import StoredFaces, open_faces

__all__ = ["main"]

_DIMENSION = 512
_SHARD_FACES = 1_024
_ENCODER = "0" * 32

Side = Callable[[], tuple[str, dict[str, float]]]


def main() -> None:
    """Fill the same index both ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        storage = open_store(folder, create=True)
        faces = _drawn(storage, args.faces)
        plan = _trained(storage, faces)
        sides: dict[str, Side] = {"one pass": partial(_one_pass, storage, faces, plan)}
        sides |= {f"workers {n}": partial(_by_workers, storage, faces, plan, n) for n in args.workers}
        rounds = [{name: side() for name, side in sides.items()} for _ in range(args.rounds)]
    if len(hashes := {sha256 for one in rounds for sha256, _ in one.values()}) > 1:
        raise SystemExit(f"the files are not the same: {hashes}")
    rows = [{"side": name, **_medians([one[name][1] for one in rounds])} for name in sides]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()), file=sys.stderr)
    told = {"faces": args.faces, "key": plan.chosen.candidate.key, "rows": rows, "machine": describe_machine()}
    print(json.dumps(told) if args.json else told)


def _drawn(storage: Storage, count: int) -> StoredFaces:
    """So many faces in shards."""
    ids, names = [], []
    for numbers, vectors in FaceVectors(count, _DIMENSION, seed=count).stream():
        for start in range(0, len(numbers), _SHARD_FACES):
            some = slice(start, start + _SHARD_FACES)
            flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors[some].reshape(-1)), _DIMENSION)
            table = pa.table({"face_id": numbers[some], "embedding": flat}, schema=embeddings_schema(_DIMENSION))
            shard = f"{numbers[start]:032x}"
            commit_embeddings(storage, encoder=_ENCODER, shard=shard, table=table, dimension=_DIMENSION)
            ids.append(numbers[some])
            names += [shard] * len(numbers[some])
    table = pa.table({"face_id": np.concatenate(ids), "shard": names})
    faces = open_faces(storage, table, encoder=_ENCODER, dimension=_DIMENSION, recorded=None)
    if not isinstance(faces, StoredFaces):
        raise SystemExit(f"{count:,} faces are held at once, and coded in one pass: give more with --faces")
    return faces


def _trained(storage: Storage, faces: StoredFaces) -> CodingPlan:
    """A scan, trained, and the blocks that are to be coded with it."""
    candidate = kind_for("scan", len(faces.ids), _DIMENSION)
    trained = train_index(candidate, faces.take(sample_rows(len(faces.ids), sample_size(candidate), seed=0)))
    asked = NearestFaces.of(FaceVectors(len(faces.ids), _DIMENSION, seed=1).queries(HELD_OUT), depth=KEPT)
    chosen = ChosenKind(candidate, "", "", (), 0, 0.0)
    held = HeldOut("tune", faces.ids[:HELD_OUT], {1.0: asked})
    anew = TrainedAnew(faces, TrainedKind(chosen, trained, asked), held, "")
    return plan_coding(storage, anew, build="benchmark", tables={})


def _one_pass(storage: Storage, faces: StoredFaces, plan: CodingPlan) -> tuple[str, dict[str, float]]:
    """As an index is filled that is held to be small."""
    trained = read_trained(read_kept(storage, plan.coder.trained), where="here")
    near = NearestFaces.of(FaceVectors(len(faces.ids), _DIMENSION, seed=1).queries(HELD_OUT), depth=KEPT)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as room, Spool(trained, faces.ids, Path(room)) as spool:
        for rows, vectors in faces.blocks():
            spool.add(rows, vectors)
            near = near.added(faces.ids[rows], vectors)
        coded = time.perf_counter()
        written = spool.write(Path(room) / "index.faiss")
    return written.sha256, {"code_s": coded - start, "merge_s": time.perf_counter() - coded, "worker_peak_mib": 0.0}


def _by_workers(storage: Storage, faces: StoredFaces, plan: CodingPlan, workers: int) -> tuple[str, dict[str, float]]:
    """By so many children, without what an earlier round kept."""
    for name in storage.names(plan.coder.folder):
        if name.endswith(".json"):
            storage.remove(f"{plan.coder.folder}/{name}")

    def code(block: ArtifactRef) -> tuple[CodedBlock, float]:
        return run_in_child(_coded, block, store=storage.uri, coder=plan.coder)

    with children(workers), ThreadPoolExecutor(workers) as threads, tempfile.TemporaryDirectory() as room:
        list(threads.map(run_in_child, [_peak_mib] * workers))  # they have started
        start = time.perf_counter()
        done = list(threads.map(code, plan.requests))
        coded = time.perf_counter()
        blocks = [block for block, _ in done]
        written, _ = fill_coded(storage, plan, blocks, ids_N=faces.ids, folder=Path(room))
        merged = time.perf_counter()
    peak = max(mib for _, mib in done)
    return written.sha256, {"code_s": coded - start, "merge_s": merged - coded, "worker_peak_mib": peak}


def _coded(block: ArtifactRef, *, store: str, coder: Coder) -> tuple[CodedBlock, float]:
    return code_faces(block, store=store, coder=coder), _peak_mib()


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}


if __name__ == "__main__":
    main()
