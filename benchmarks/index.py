"""Indexes of drawn face embeddings side by side: ours, exact search, and what others offer.

    python -m benchmarks.index --faces 10000 100000 --rows index.jsonl --peers PYTHON [--json]

Every row is a process of its own, so that its peak memory is its own, and may take two hours; a row that stands in --rows is not made
again, so that the same command goes on where it was stopped. Every process may use --memory of its own (RLIMIT_DATA: what it
allocates; mapped files and the kernel's cache of them are not in it), and autofaiss is told the same figure. Ours and autofaiss read
the vectors from files; usearch and hnswlib are given them in memory, which their peak leaves out.
How many times as quick as exact search an engine is, is measured in its own process, query by query in turn.
--peers names a Python that has usearch, hnswlib or autofaiss; what it has not is passed over and said. Vectors are drawn as
benchmarks/face_vectors.py describes; queries are other photos of the same people. Faces take 2 KB of disk each while it runs, ours
1.2 KB more.
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
from models.exact_search import NearestFaces
from store.index_choice import memory_of

__all__ = ["main"]

_QUERIES = 400
_COLUMNS = {
    "faces": "faces", "engine": "engine", "built": "what it built", "recall_at_10": "recall@10", "p50_ms": "p50 ms",
    "p99_ms": "p99 ms", "speedup_vs_exact": "times exact", "queries_per_s": "queries/s, one core", "queries_per_s_2": "two",
    "build_s": "build s", "file_mb": "file MB", "peak_mib": "peak MiB",
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
    parser.add_argument("--memory", type=memory_of, default=memory_of("8G"), help="that each process may allocate")
    parser.add_argument("--rows", type=Path, default=Path("index.jsonl"))
    parser.add_argument("--peers", default=sys.executable, help="a Python that has usearch, hnswlib, autofaiss")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    rows = _read(args.rows)
    for faces in args.faces:
        asked = {"faces": faces, "dimension": args.dimension, "latency_ms": args.latency, "memory": args.memory}
        missing = [e for e in args.engines if not any(r["engine"] == e and asked.items() <= r.items() for r in rows)]
        if missing:
            rows += _make(args, asked, missing)
    print(json.dumps(describe_machine(), indent=1))
    print(_table(rows))
    if args.json:
        named = [row | {"n": row["faces"], "index": row["built"]} for row in rows]
        print(json.dumps({"machine": describe_machine(), "index": {"rows": named}}))


def _make(args: argparse.Namespace, asked: dict[str, Any], engines: list[str]) -> list[dict[str, Any]]:
    made = []
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        _draw(Path(folder), asked["faces"], asked["dimension"])
        for engine in engines:
            python = sys.executable if engine in _OURS else args.peers
            row = {**asked, **_row(python, engine, folder, asked)}
            print(json.dumps(row), file=sys.stderr)
            if "recall_at_10" in row:
                with args.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            made.append(row)
    return made


def _draw(folder: Path, faces: int, dimension: int) -> None:
    """Write vectors, two sets of queries, and their exact answers; no more than a block is in memory."""
    drawn = FaceVectors(faces, dimension)
    queries_QD = np.random.default_rng(0).permutation(drawn.queries(2 * _QUERIES))
    near = NearestFaces.of(queries_QD, depth=10)
    (folder / "vectors").mkdir()
    vectors_ND = np.lib.format.open_memmap(
        folder / "vectors" / "0.npy", mode="w+", dtype=np.float32, shape=(faces, dimension)
    )
    for ids_B, block_BD in drawn.stream():
        vectors_ND[ids_B[0] : ids_B[-1] + 1] = block_BD
        near = near.added(ids_B, block_BD)
    vectors_ND.flush()
    del vectors_ND
    for name, chosen in (("tune", slice(None, _QUERIES)), ("ask", slice(_QUERIES, None))):
        np.save(folder / f"{name}.npy", queries_QD[chosen])
        np.save(folder / f"{name}_exact.npy", near.ids[chosen])


def _row(python: str, engine: str, folder: str, asked: dict[str, Any]) -> dict[str, Any]:
    script = Path(__file__).with_name("index_rows.py")
    env = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "2"}
    command = [python, str(script), engine, folder, str(asked["latency_ms"]), str(asked["memory"])]
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
