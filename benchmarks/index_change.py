"""What it costs to publish a version with 1 % new faces, against one whose index is made anew.

    python -m benchmarks.index_change [--faces 1000000] [--latency 2] [--whole] [--json]

A store is made of drawn vectors of 512 dimensions (benchmarks/face_vectors.py), each a photo with one face, and published. Then
1 % of photos come, and the next version is published, which is kept as changes to the first (with --whole it is a whole copy of it).
Then the same faces are published under another budget, and the version is made anew. Both go from committed shards to CURRENT, in a
process each: the embeddings are read, the index is made, tuned, written, read back and asked the gate's queries, and the version's
tables are written and checked. Queries are other photos of the same people. What Prefect, listing, drawing, planning, detecting and
embedding take is not in it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmarks.drawn_queries import drawn_queries
from benchmarks.face_vectors import FaceVectors
from benchmarks.incremental import commit_drawn, list_drawn
from benchmarks.machine import describe_machine
from benchmarks.serve import drawing
from store.index_choice import AskedBudget
from store.layout import open_store
from store.manifest import Manifest
from store.version_files import OF_THE_BASE
from store.versions import read_version
from tasks.steps.check_version import check_version
from tasks.steps.contract import Contract
from tasks.steps.plan_build import plan_build, with_budget
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder
from tasks.steps.write_index import write_index

__all__ = ["main"]

_SHARE = 0.01
_FLOOR = 0.05
_STEPS = ("first", "one percent more", "made anew")


def main() -> None:
    """Publish three versions and print what the second and the third cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=2.0, help="milliseconds that the index is asked for")
    parser.add_argument("--whole", action="store_true", help="the changed version is written as a whole copy")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--publish", nargs=2, metavar=("STEP", "STORE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        print(json.dumps(_publish(args.publish[0], args.publish[1], args.faces, args.latency, whole=args.whole)))
        return
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        new_encoder(folder, settings=NetworkSettings(width=0.125, dimension=512, input_px=80))
        rows = {step: _in_child(step, folder, args) for step in _STEPS}
    changed, anew = rows["one percent more"], rows["made anew"]
    ratios = {name: round(changed["seconds"][name] / anew["seconds"][name], 4) for name in anew["seconds"]}
    told = {"faces": args.faces, "versions": rows, "ratios": ratios, "floor": _FLOOR, "machine": describe_machine()}
    print(json.dumps(told if args.json else {"faces": args.faces, "ratios": ratios, "machine": told["machine"]}))


def _in_child(step: str, store: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.index_change", "--publish", step, store]
    command += ["--faces", str(args.faces), "--latency", str(args.latency), *(["--whole"] if args.whole else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{step}: {row}", file=sys.stderr)
    return row


def _written(manifest: Manifest) -> int:
    """Bytes of the version's files that are its own."""
    of_base = OF_THE_BASE if manifest.changes is not None else ()
    return sum(record.bytes for name, record in manifest.files.items() if name not in of_base)


def _publish(step: str, store: str, faces: int, latency_ms: float, *, whole: bool = False) -> dict[str, Any]:
    """One version; seconds from the committed shards to CURRENT."""
    storage, contract = open_store(store), Contract()
    encoder = resolve_encoder(storage.names("encoders")[0], store=store)
    total = faces if step == "first" else faces + int(_SHARE * faces)
    plan = plan_build(list_drawn(storage, total), store=store, contract=contract, encoder=encoder.id)
    commit_drawn(storage, plan, encoder, draw=drawing(total, encoder.dimension))
    plan = with_budget(plan, AskedBudget(latency_ms=latency_ms * (1.01 if step == "made anew" else 1)))
    plan = replace(plan, difference=None) if whole else plan
    seconds = {}
    with drawn_queries(FaceVectors(faces, encoder.dimension, seed=faces)):
        start = time.perf_counter()
        draft = write_index(plan, store=store, contract=contract, encoder=encoder)
        seconds["write"] = time.perf_counter() - start
        checked = check_version(draft, store=store)
        seconds["check"] = time.perf_counter() - start - seconds["write"]
        publish_version(checked.draft, store=store, plan=plan)
    seconds["publish"] = time.perf_counter() - start - sum(seconds.values())
    manifest = read_version(storage).manifest
    index, metrics = manifest.index, manifest.metrics or {}
    return {
        "seconds": {**{name: round(took, 2) for name, took in seconds.items()}, "all": round(sum(seconds.values()), 2)},
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "change": index.change,
        "kept": "whole" if manifest.changes is None else f"beside version {manifest.changes.base}",
        "written_mb": round(_written(manifest) / 1e6, 1),
        "p50_ms": metrics.get("p50_ms"),
        "key": index.key,
        "recall_at_10": checked.recall_at_10,
        "why": index.why,
    }


if __name__ == "__main__":
    main()
