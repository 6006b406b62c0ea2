"""One row of benchmarks/index.py: build an index of stored vectors by one engine, tune it, ask it, and print a line of JSON.

`python index_rows.py ENGINE FOLDER LATENCY_MS MEMORY_BYTES`, with whatever Python has the engine: `exact`, `lookalike`, `usearch`,
`hnswlib` or `autofaiss`. FOLDER holds vectors/0.npy, and tune.npy and ask.npy with their exact answers in tune_exact.npy and
ask_exact.npy. Every engine is tuned on one set of queries until its recall@10 reaches 0.95 nineteen times of twenty, and asked another
set.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ENGINES", "Job", "Made", "main"]

Array = npt.NDArray[Any]
Ask = Callable[[Array], Array]

RECALL = 0.95
_SURE = 1.645
_THREADS = 2
_BLOCK = 32_768
_IN_TURN = 100
_GRAPH = {"links": 32, "width": 120}


@dataclass(frozen=True)
class Job:
    """What an engine is given: a folder with the vectors, queries to tune with and their exact answers, and what it may take."""

    folder: Path
    tune: Array
    tune_exact: Array
    latency_ms: float
    memory_bytes: int


@dataclass(frozen=True)
class Made:
    """What it built, a function that answers queries, the bytes of its file, and why it is what it is where it says so."""

    key: str
    ask: Ask
    bytes: int
    why: str = ""


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


def _vectors(job: Job) -> Array:
    """All of them, in memory; the peak of what comes after begins here."""
    vectors: Array = np.load(job.folder / "vectors" / "0.npy")
    _reset_peak()
    return vectors


def _exact(job: Job) -> Made:
    import faiss  # noqa: PLC0415

    vectors = np.load(job.folder / "vectors" / "0.npy", mmap_mode="r")
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.array(vectors[start : start + _BLOCK]))
    return Made("Flat", lambda q: index.search(q, 10)[1], vectors.nbytes)


class _FileBlocks:
    """Vectors in a file, read block by block, as a store's shards are."""

    def __init__(self, path: Path) -> None:
        self._vectors = np.load(path, mmap_mode="r")
        self._path, self._start = path, path.stat().st_size - self._vectors.nbytes
        self.ids, self.dimension = np.arange(len(self._vectors)), int(self._vectors.shape[1])

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """As of tasks.steps.face_blocks.FaceBlocks; read and not mapped, so that none of it stays."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            for first in range(0, len(self.ids), _BLOCK):
                count = min(_BLOCK, len(self.ids) - first)
                block = np.fromfile(file, np.float32, count * self.dimension).reshape(count, self.dimension)
                yield np.arange(first, first + count), block

    def take(self, rows: Array) -> Array:
        """As of FaceBlocks."""
        out = np.empty((len(rows), self.dimension), np.float32)
        with self._path.open("rb") as file:
            for n, row in enumerate(rows.tolist()):
                file.seek(self._start + 4 * self.dimension * row)
                out[n] = np.fromfile(file, np.float32, self.dimension)
        return out


def _lookalike(job: Job) -> Made:
    from store.index_choice import IndexBudget  # noqa: PLC0415
    from store.index_search import SearchSettings, search  # noqa: PLC0415
    from store.index_trial import open_mapped  # noqa: PLC0415
    from tasks.steps.choose_index import build_chosen  # noqa: PLC0415

    room = job.folder / "lookalike"
    room.mkdir(exist_ok=True)
    built = build_chosen(
        _FileBlocks(job.folder / "vectors" / "0.npy"),
        budget=IndexBudget(latency_ms=job.latency_ms),
        queries=lambda: job.tune,
        folder=room,
    )
    index, settings = open_mapped(str(built.path)), SearchSettings.of(built.parameters)
    said = ", ".join(f"{name} {value:g}" for name, value in settings.as_json().items())
    return Made(
        f"{built.key} {said}".strip(),
        lambda q: search(index, q, k=10, settings=settings)[1],
        built.written.bytes,
        built.why,
    )


def _usearch(job: Job) -> Made:
    from usearch.index import Index  # noqa: PLC0415

    vectors = _vectors(job)
    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=_GRAPH["links"], expansion_add=_GRAPH["width"]
    )
    index.add(np.arange(len(vectors)), vectors, threads=_THREADS)

    def way(effort: int) -> Ask:
        def ask(queries: Array) -> Array:
            index.expansion_search = effort
            return np.atleast_2d(np.asarray(index.search(queries, 10, threads=1).keys)).astype(np.int64)

        return ask

    name, ask = _tuned(((f"expansion {n}", way(n)) for n in _efforts()), job.tune, job.tune_exact)
    return Made(f"HNSW{_GRAPH['links']} {name}", ask, int(index.serialized_length))


def _hnswlib(job: Job) -> Made:
    import hnswlib  # noqa: PLC0415

    vectors = _vectors(job)
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=_GRAPH["links"], ef_construction=_GRAPH["width"])
    index.add_items(vectors, np.arange(len(vectors)), num_threads=_THREADS)

    def way(effort: int) -> Ask:
        def ask(queries: Array) -> Array:
            index.set_ef(effort)
            return np.asarray(index.knn_query(queries, k=10, num_threads=1)[0]).astype(np.int64)

        return ask

    name, ask = _tuned(((f"ef {n}", way(n)) for n in _efforts()), job.tune, job.tune_exact)
    return Made(f"HNSW{_GRAPH['links']} {name}", ask, int(index.index_file_size()))


def _autofaiss(job: Job) -> Made:
    import faiss  # noqa: PLC0415
    from autofaiss import build_index  # noqa: PLC0415

    limit = f"{job.memory_bytes / 2**30:g}GB"
    index, infos = build_index(
        embeddings=str(job.folder / "vectors"), metric_type="ip", max_index_query_time_ms=job.latency_ms,
        index_path=str(job.folder / "autofaiss.index"), index_infos_path=str(job.folder / "autofaiss.json"),
        max_index_memory_usage="4GB", current_memory_available=limit, nb_cores=_THREADS, verbose=40,
    )  # fmt: skip
    index = faiss.read_index(str(job.folder / "autofaiss.index")) if index is None else index
    key = str((infos or {}).get("index_key", type(index).__name__))
    size = (job.folder / "autofaiss.index").stat().st_size
    return Made(f"{key} as it tunes itself", lambda q: index.search(q, 10)[1], size)


ENGINES: dict[str, Callable[[Job], Made]] = {
    "exact": _exact,
    "lookalike": _lookalike,
    "usearch": _usearch,
    "hnswlib": _hnswlib,
    "autofaiss": _autofaiss,
}
"""Each makes an index of the job's vectors."""


def _efforts() -> list[int]:
    return [16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096]


def _cores(count: int) -> None:
    if faiss := sys.modules.get("faiss"):
        faiss.omp_set_num_threads(count)


def _latencies(asks: list[Ask], queries: Array) -> list[Array]:
    """Milliseconds of each query, one after another, every way of asking in turn."""
    took: list[list[float]] = [[] for _ in asks]
    for n in range(-1, len(queries)):
        for ask, its in zip(asks, took, strict=True):
            start = time.perf_counter()
            ask(queries[max(n, 0) : max(n, 0) + 1])
            if n >= 0:  # the first is for warmth
                its.append(1e3 * (time.perf_counter() - start))
    return [np.array(its) for its in took]


def _a_second(ask: Ask, queries: Array) -> float:
    """Queries that are answered a second when all are asked at once."""
    start = time.perf_counter()
    ask(queries)
    return len(queries) / (time.perf_counter() - start)


def _beside_exact(job: Job, made: Made, queries: Array) -> dict[str, float]:
    """How many times as quick as exact search, both asked in turn in this process, for a machine's pace changes by the minute.

    Nothing where all vectors take more than half of the memory, or where there is no FAISS.
    """
    if (job.folder / "vectors" / "0.npy").stat().st_size > job.memory_bytes / 2:
        return {}
    try:
        exact = _exact(job)
    except ImportError:
        return {}
    _cores(1)
    its, of_exact = (float(np.median(one)) for one in _latencies([made.ask, exact.ask], queries))
    return {"speedup_vs_exact": round(of_exact / its, 1), "exact_p50_ms": round(of_exact, 2)}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    """Bytes that Linux counts for this process: VmRSS now, VmHWM at most since the peak was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def main(engine: str, folder: Path, latency_ms: float, memory_bytes: int) -> dict[str, Any]:
    """The row: what was built, seconds, bytes, peak memory, recall@10, latency and throughput."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    there = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    job = Job(folder, there["tune"], there["tune_exact"], latency_ms, memory_bytes)
    start = time.perf_counter()
    made = ENGINES[engine](job)
    seconds, peak = time.perf_counter() - start, _memory("VmHWM")
    shares = _recalls(made.ask(there["ask"]), there["ask_exact"])
    _cores(1)
    took = _latencies([made.ask], there["ask"])[0]
    one = _a_second(made.ask, there["ask"])
    cores = _THREADS if "faiss" in sys.modules else 1  # the graphs are asked on one core
    in_turn = _beside_exact(job, made, there["ask"][:_IN_TURN]) if engine != "exact" else {}
    _cores(_THREADS)
    return {
        "engine": engine,
        "why": made.why,
        "built": made.key,
        "build_s": round(seconds, 1),
        "file_mb": round(made.bytes / 1e6, 1),
        "peak_mib": round(peak / 2**20),
        "recall_at_10": round(float(shares.mean()), 4),
        "p50_ms": round(float(np.median(took)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
        **in_turn,
        "queries_per_s": round(one, 1),
        "queries_per_s_2": round(_a_second(made.ask, there["ask"]), 1) if cores > 1 else None,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(_THREADS))
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
