"""Indexes of drawn face embeddings side by side: ours, exact search, and what others offer.

    python -m benchmarks.index --faces 10000 100000 --rows index.jsonl --peers PYTHON

Every row is a process of its own, so that its peak memory is its own; a row that stands in --rows is not made again, so that the
same command goes on where it was stopped. --faces 1000000 takes about 2 GB of disk and, for the graphs, most of an hour.
--peers names a Python that has usearch, hnswlib or autofaiss; what it has not is passed over and said. Vectors are drawn as
benchmarks/face_vectors.py describes; queries are other photos of the same people.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.face_vectors import FaceVectors
from benchmarks.index_rows import ENGINES
from benchmarks.machine import describe_machine
from models.exact_search import search_exactly

__all__ = ["main"]

_QUERIES = 400
_COLUMNS = {
    "faces": "faces", "engine": "engine", "built": "what it built", "recall_at_10": "recall@10", "p50_ms": "p50 ms",
    "p99_ms": "p99 ms", "build_s": "build s", "file_mb": "file MB", "peak_mb": "peak MB",
}  # fmt: skip
_OURS = ("exact", "lookalike")
_LIMIT_S = 7_200


def main() -> None:
    """Make the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--latency", type=float, default=2.0, help="milliseconds that ours and autofaiss are asked for")
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--rows", type=Path, default=Path("index.jsonl"))
    parser.add_argument("--peers", default=sys.executable, help="a Python that has usearch, hnswlib, autofaiss")
    args = parser.parse_args()
    rows = _read(args.rows)
    for faces in args.faces:
        asked = {"faces": faces, "dimension": args.dimension, "latency_ms": args.latency}
        missing = [e for e in args.engines if not any(r["engine"] == e and asked.items() <= r.items() for r in rows)]
        if missing:
            rows += _make(args, asked, missing)
    print(json.dumps(describe_machine(), indent=1))
    print(_table(rows))


def _make(args: argparse.Namespace, asked: dict[str, Any], engines: list[str]) -> list[dict[str, Any]]:
    made = []
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        _draw(Path(folder), asked["faces"], asked["dimension"])
        for engine in engines:
            python = sys.executable if engine in _OURS else args.peers
            row = {**asked, **_row(python, engine, folder, asked["latency_ms"])}
            print(json.dumps(row), file=sys.stderr)
            if "recall_at_10" in row:
                with args.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            made.append(row)
    return made


def _draw(folder: Path, faces: int, dimension: int) -> None:
    """Write vectors, two sets of queries, and their exact answers."""
    drawn = FaceVectors(faces, dimension)
    vectors_ND = np.concatenate([vectors for _, vectors in drawn.stream()])
    queries_QD = np.random.default_rng(0).permutation(drawn.queries(2 * _QUERIES))
    np.save(folder / "vectors.npy", vectors_ND)
    for name, queries in (("tune", queries_QD[:_QUERIES]), ("ask", queries_QD[_QUERIES:])):
        np.save(folder / f"{name}.npy", queries)
        np.save(folder / f"{name}_exact.npy", search_exactly(queries, np.arange(faces), vectors_ND, k=10).ids)


def _row(python: str, engine: str, folder: str, latency_ms: float) -> dict[str, Any]:
    script = Path(__file__).with_name("index_rows.py")
    env = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "2"}
    command = [python, str(script), engine, folder, str(latency_ms)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"engine": engine, "built": f"stopped after {_LIMIT_S} s"}
    if done.returncode:
        return {"engine": engine, "built": f"not run: {(done.stderr.strip().splitlines() or ['it died'])[-1]}"}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(_COLUMNS.values()) + " |", "| " + " | ".join("---" for _ in _COLUMNS) + " |"]
    for row in sorted(rows, key=lambda r: r["faces"]):
        cells = (f"{row[c]:,}" if isinstance(row.get(c), int) else str(row.get(c, "")) for c in _COLUMNS)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
