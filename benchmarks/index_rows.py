"""One row of benchmarks/index.py: build an index of stored vectors by one engine, tune it, ask it, and print a line of JSON.

`python index_rows.py ENGINE FOLDER LATENCY_MS`, with whatever Python has the engine: `exact`, `lookalike`, `usearch`, `hnswlib` or
`autofaiss`. FOLDER holds vectors.npy, tune.npy and ask.npy with their exact answers in tune_exact.npy and ask_exact.npy. Every engine
is tuned on one set of queries until its recall@10 reaches 0.95 nineteen times of twenty, and asked another set.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ENGINES", "main"]

Array = npt.NDArray[Any]
Ask = Callable[[Array], Array]

RECALL = 0.95
_SURE = 1.645
_THREADS = 2
_GRAPH = {"links": 32, "width": 120}


def _recalls(found: Array, exact: Array) -> Array:
    return np.array([len(set(a[:10].tolist()) & set(b[:10].tolist())) / 10 for a, b in zip(found, exact, strict=True)])


def _tuned(ways: Iterable[tuple[str, Ask]], tune: Array, exact: Array) -> tuple[str, Ask]:
    """The first way of asking that is right enough, by rising effort; else the last."""
    *others, last = ways
    for way in others:
        shares = _recalls(way[1](tune), exact)
        if shares.mean() - _SURE * shares.std() / len(shares) ** 0.5 >= RECALL:
            return way
    return last


def _exact(vectors: Array, tune: Array, exact: Array, latency_ms: float) -> tuple[str, Ask, int, str]:
    import faiss  # noqa: PLC0415

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return "Flat", lambda q: index.search(q, 10)[1], vectors.nbytes, ""


def _lookalike(vectors: Array, tune: Array, exact: Array, latency_ms: float) -> tuple[str, Ask, int, str]:
    from store.index_choice import IndexBudget  # noqa: PLC0415
    from store.index_file import load_index  # noqa: PLC0415
    from store.index_search import SearchSettings, search  # noqa: PLC0415
    from tasks.steps.choose_index import build_chosen  # noqa: PLC0415

    built = build_chosen(
        np.arange(len(vectors)), vectors, budget=IndexBudget(latency_ms=latency_ms), queries=lambda: tune
    )
    index, settings = load_index(built.data, where="it"), SearchSettings.of(built.parameters)
    said = ", ".join(f"{name} {value:g}" for name, value in settings.as_json().items())
    return (
        f"{built.key} {said}".strip(),
        lambda q: search(index, q, k=10, settings=settings)[1],
        len(built.data),
        built.why,
    )


def _usearch(vectors: Array, tune: Array, exact: Array, latency_ms: float) -> tuple[str, Ask, int, str]:
    from usearch.index import Index  # noqa: PLC0415

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=_GRAPH["links"], expansion_add=_GRAPH["width"]
    )
    index.add(np.arange(len(vectors)), vectors, threads=_THREADS)

    def way(effort: int) -> Ask:
        def ask(queries: Array) -> Array:
            index.expansion_search = effort
            return np.atleast_2d(np.asarray(index.search(queries, 10, threads=1).keys)).astype(np.int64)

        return ask

    name, ask = _tuned(((f"expansion {n}", way(n)) for n in _efforts()), tune, exact)
    return f"HNSW{_GRAPH['links']} {name}", ask, int(index.serialized_length), ""


def _hnswlib(vectors: Array, tune: Array, exact: Array, latency_ms: float) -> tuple[str, Ask, int, str]:
    import hnswlib  # noqa: PLC0415

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=_GRAPH["links"], ef_construction=_GRAPH["width"])
    index.add_items(vectors, np.arange(len(vectors)), num_threads=_THREADS)

    def way(effort: int) -> Ask:
        def ask(queries: Array) -> Array:
            index.set_ef(effort)
            return np.asarray(index.knn_query(queries, k=10, num_threads=1)[0]).astype(np.int64)

        return ask

    name, ask = _tuned(((f"ef {n}", way(n)) for n in _efforts()), tune, exact)
    return f"HNSW{_GRAPH['links']} {name}", ask, int(index.index_file_size()), ""


def _autofaiss(vectors: Array, tune: Array, exact: Array, latency_ms: float) -> tuple[str, Ask, int, str]:
    import faiss  # noqa: PLC0415
    from autofaiss import build_index  # noqa: PLC0415

    index, infos = build_index(
        embeddings=vectors, metric_type="ip", save_on_disk=False, max_index_query_time_ms=latency_ms,
        max_index_memory_usage="4GB", current_memory_available="8GB", nb_cores=_THREADS, verbose=40,
    )  # fmt: skip
    key = str(infos.get("index_key", type(index).__name__))
    return f"{key} as it tunes itself", lambda q: index.search(q, 10)[1], len(faiss.serialize_index(index)), ""


ENGINES: dict[str, Callable[[Array, Array, Array, float], tuple[str, Ask, int, str]]] = {
    "exact": _exact,
    "lookalike": _lookalike,
    "usearch": _usearch,
    "hnswlib": _hnswlib,
    "autofaiss": _autofaiss,
}
"""Each gives what it built, a function that answers queries, the bytes of its file, and why it is what it is where it says so."""


def _efforts() -> list[int]:
    return [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096]


def _latencies(ask: Ask, queries: Array) -> Array:
    """Milliseconds of each query, one after another; FAISS on one core as the others are."""
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(1)
    ask(queries[:1])
    took = []
    for n in range(len(queries)):
        start = time.perf_counter()
        ask(queries[n : n + 1])
        took.append(1e3 * (time.perf_counter() - start))
    return np.array(took)


def _memory(what: str) -> int:
    """Bytes that Linux counts for this process: VmRSS now, VmHWM at most since the peak was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def main(engine: str, folder: str, latency_ms: float) -> dict[str, Any]:
    """The row: what was built, seconds, bytes, peak memory, recall@10 and latency."""
    there = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _memory("VmRSS")
    start = time.perf_counter()
    key, ask, size, why = ENGINES[engine](there["vectors"], there["tune"], there["tune_exact"], latency_ms)
    seconds, peak = time.perf_counter() - start, _memory("VmHWM")
    shares = _recalls(ask(there["ask"]), there["ask_exact"])
    took = _latencies(ask, there["ask"])
    return {
        "engine": engine,
        "why": why,
        "built": key,
        "build_s": round(seconds, 1),
        "file_mb": round(size / 1e6, 1),
        "peak_mb": round(peak / 1e6),
        "vectors_mb": round(before / 1e6),
        "recall_at_10": round(float(shares.mean()), 4),
        "p50_ms": round(float(np.median(took)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
    print(json.dumps(main(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
