"""What it costs to change an index for 1 % new faces, against making it anew, and what fifty rounds of changes do to recall.

    python -m benchmarks.index_change --faces 20000 [--latency 2] [--rounds 50]

Vectors are drawn as benchmarks/face_vectors.py describes; queries are other photos of the same people. `rebuild` and `change` are each a
process of its own: from vectors in memory to an index that is tuned, written, read back and asked the gate's queries, with the exact
neighbours searched over all faces. Reading shards and writing a version's tables, which are the same for both, are not in it.
The rounds each remove and add 1 % of the faces; recall is then compared with that of a fresh build, asked in the same way.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.face_vectors import FaceVectors
from benchmarks.machine import describe_machine
from store.index_choice import IndexBudget, kind_for
from store.index_edit import edit_index, misfit_of, unevenness_of
from store.index_file import build_index, index_bytes, load_index
from store.index_search import SearchSettings
from tasks.steps.choose_index import build_chosen
from tasks.steps.measure_index import Gallery, Questions, measured_at, recall_of
from tasks.steps.prove_index import prove_approximate

__all__ = ["main"]

_QUERIES = 256
_SHARE = 0.01
_FLOOR = 0.05


def main() -> None:
    """Print a line of JSON: seconds of both, their ratio, and recall after the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--step", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(_STEPS[args.step[0]](Path(args.step[1]), args)))
        return
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        rows = {name: _in_child(name, folder, args) for name in ("draw", "first", "rebuild", "change", "drift")}
    ratio = rows["change"]["seconds"] / rows["rebuild"]["seconds"]
    told = {"faces": args.faces, **rows, "ratio": round(ratio, 4), "floor": _FLOOR, "machine": describe_machine()}
    print(json.dumps(told))


def _in_child(name: str, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.index_change", "--step", name, folder]
    for option in ("faces", "dimension", "latency", "rounds"):
        command += [f"--{option}", str(getattr(args, option))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{name}: {row}", file=sys.stderr)
    return row


def _draw(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """So many faces, 1 % more for the change, and as many more as the rounds take."""
    total = args.faces + int(_SHARE * args.faces)
    drawn = FaceVectors(total, args.dimension)
    np.save(folder / "vectors.npy", np.concatenate([vectors for _, vectors in drawn.stream()]))
    np.save(folder / "queries.npy", np.random.default_rng(0).permutation(drawn.queries(2 * _QUERIES)))
    return {"faces": total}


def _loaded(folder: Path, args: argparse.Namespace) -> tuple[Gallery, int, Any]:
    """The faces after the change, by rising id; how many there were before; the queries."""
    vectors_ND = np.load(folder / "vectors.npy")
    return Gallery(np.arange(len(vectors_ND)), vectors_ND), args.faces, np.load(folder / "queries.npy")


def _first(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The index of the version before."""
    gallery, before, queries_QD = _loaded(folder, args)
    built = build_chosen(
        gallery.ids[:before],
        gallery.vectors[:before],
        budget=IndexBudget(latency_ms=args.latency),
        queries=lambda: queries_QD[:_QUERIES],
    )
    (folder / "first.faiss").write_bytes(built.data)
    (folder / "first.json").write_text(json.dumps(built.parameters))
    return {"key": built.key, "why": built.why}


def _proven(folder: Path, data: bytes, parameters: dict[str, Any], gallery: Gallery, queries_QD: Any) -> float:
    path = folder / "next.faiss"
    path.write_bytes(data)
    index = load_index(path.read_bytes(), where="it")
    metrics = prove_approximate(index, gallery, SearchSettings.of(parameters), queries_QD[_QUERIES:])
    return float(metrics["recall_at_10"])


def _rebuild(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    gallery, _, queries_QD = _loaded(folder, args)
    start = time.perf_counter()
    built = build_chosen(
        gallery.ids,
        gallery.vectors,
        budget=IndexBudget(latency_ms=args.latency),
        queries=lambda: queries_QD[:_QUERIES],
    )
    recall = _proven(folder, built.data, built.parameters, gallery, queries_QD)
    return {"seconds": round(time.perf_counter() - start, 2), "recall_at_10": recall, "key": built.key}


def _change(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    gallery, before, queries_QD = _loaded(folder, args)
    parameters = json.loads((folder / "first.json").read_text())
    clock = _Clock()
    index = load_index((folder / "first.faiss").read_bytes(), where="it")
    clock.mark("open")
    edit_index(index, removed_R=gallery.ids[:0], added_A=gallery.ids[before:], vectors_AD=gallery.vectors[before:])
    clock.mark("edit")
    misfit_of(index, gallery.vectors)
    unevenness_of(index)
    asked = Questions.of(queries_QD[:_QUERIES], gallery)
    clock.mark("exact neighbours")
    point = measured_at(index, asked, SearchSettings.of(parameters))
    clock.mark("ask")
    recall = _proven(folder, index_bytes(index), parameters, gallery, queries_QD)
    clock.mark("write and prove")
    return {"seconds": clock.total(), "recall_at_10": recall, "tuning": round(point.recall, 4), "parts": clock.parts}


class _Clock:
    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = round(now - self._last, 2)
        self._last = now

    def total(self) -> float:
        return round(sum(self.parts.values()), 2)


def _drift(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Rounds that each take out 1 % of the faces and put the 1 % that is outside in."""
    gallery, before, queries_QD = _loaded(folder, args)
    parameters = json.loads((folder / "first.json").read_text())
    if "kind" not in parameters:
        return {"rounds": 0, "kind": "exact"}
    rng, settings = np.random.default_rng(7), SearchSettings.of(parameters)
    index = load_index((folder / "first.faiss").read_bytes(), where="it")
    outside = gallery.ids[before:]
    for _ in range(args.rounds):
        out = np.sort(rng.choice(np.setdiff1d(gallery.ids, outside), len(outside), replace=False))
        edit_index(index, removed_R=out, added_A=outside, vectors_AD=gallery.vectors[outside])
        outside = out
    there = np.setdiff1d(gallery.ids, outside)
    now = Gallery(there, gallery.vectors[there])
    fresh = build_index(kind_for(parameters["kind"], len(there), args.dimension), now.ids, now.vectors)
    asked = Questions.of(queries_QD, now)
    both = [recall_of(one, asked, settings, ks=(10,))[10] for one in (index, fresh)]
    return {"rounds": args.rounds, "kind": parameters["kind"], "changed": both[0], "fresh": both[1]}


_STEPS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "draw": _draw,
    "first": _first,
    "rebuild": _rebuild,
    "change": _change,
    "drift": _drift,
}


if __name__ == "__main__":
    main()
