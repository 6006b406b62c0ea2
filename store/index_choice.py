"""Which index a gallery gets: one pure function of its size, its dimension and what may be spent, with its reasons in words.

| kind | FAISS | bytes a face held in memory, of D dimensions | what it is for |
| --- | --- | --- | --- |
| exact | Flat | 4 D | as long as comparing every face is quick enough |
| lists | IVF, Flat | 4 D | approximate, cosines exact |
| lists-sq8 | IVF, SQ8 | D | a byte a dimension |
| lists-pca | PCA D/4, IVF, SQ8, refined by SQ8 | D / 4, and D on disk | candidates by a quarter of the dimensions, compared again by all |
| lists-rabitq | rotation, IVF, RaBitQ, refined by SQ8 | D / 8, and D on disk | candidates by one bit a dimension |
| graph | HNSW, Flat | 4 D + 264 | where nothing is ever removed |

What refines lies in the file by row and is read for candidates only: mapped, it need not fit into memory.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from store.errors import VersionError

__all__ = [
    "DEFAULT_LATENCY_MS",
    "DEFAULT_MEMORY_BYTES",
    "FEWEST_FOR_LISTS",
    "KINDS",
    "RECALL_GATE",
    "Candidate",
    "Choice",
    "IndexNeeds",
    "choose_index",
    "lists_for",
]

RECALL_GATE = 0.95
"""Least recall@10 against exact search that a version must reach to be published; the one place it is set."""

DEFAULT_MEMORY_BYTES = 4 * 2**30
DEFAULT_LATENCY_MS = 20.0

FEWEST_FOR_LISTS = 10_000
"""Of fewer faces no lists can be trained that are worth it: 256 lists want 39 faces each."""

_LIST_FACES = 39  # k-means wants so many a list, as FAISS has it
_MOST_LISTS = 16_384
_GRAPH_LINKS = 264  # bytes a face: 2 * 32 links of 4 bytes, and levels
_ROW_BYTES = 16  # face id, and row number in a list

_EXACT_NS = 0.36
"""Nanoseconds that one core needs a dimension of one compared face: docs/benchmarks.md has the measurement."""

_CANDIDATE_NS = 0.12  # a byte of a code
_SHARE = 0.35  # of all lists, which the hardest queries need at recall 0.95


@dataclass(frozen=True)
class IndexNeeds:
    """What an index is asked to be.

    Attributes:
        faces: in it.
        dimension: of each.
        memory_bytes: that it may hold while it answers.
        latency_ms: of one query on one core.
        recall: recall@10 that it is tuned for, in (0, 1].
        append_only: nothing is ever removed.
    """

    faces: int
    dimension: int
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    latency_ms: float = DEFAULT_LATENCY_MS
    recall: float = RECALL_GATE
    append_only: bool = False


@dataclass(frozen=True)
class Candidate:
    """A kind of index, and what it is expected to take.

    Attributes:
        kind: one of KINDS.
        key: as FAISS writes such an index.
        lists: of an index of lists, else 0.
        memory_bytes: held while it answers.
        file_bytes: of its file.
        latency_ms: of a query on one core, by rule of thumb; what is published is measured.
    """

    kind: str
    key: str
    lists: int
    memory_bytes: int
    file_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Choice:
    """What may be built.

    Attributes:
        candidates: that fit, best first; where there are several they are measured on a sample.
        refused: a sentence for each kind that does not fit.
        why: in words.
    """

    candidates: tuple[Candidate, ...]
    refused: tuple[str, ...]
    why: str


def lists_for(faces: int) -> int:
    """How many lists: about four times the root, a power of two, each with enough faces to be trained by; at most 16,384."""
    wanted = 4 * math.sqrt(max(1, faces))
    most = min(_MOST_LISTS, max(1, faces // _LIST_FACES))
    return 1 << max(0, min(int(math.log2(most)), round(math.log2(wanted))))


def _exact(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (4 * dimension + 8)
    return Candidate("exact", "Flat", 0, held, held, faces * dimension * _EXACT_NS / 1e6)


def _flat_lists(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (4 * dimension + _ROW_BYTES) + lists * dimension * 4
    return Candidate("lists", f"IVF{lists},Flat", lists, held, held, _SHARE * faces * dimension * _EXACT_NS / 1e6)


def _sq8(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (dimension + _ROW_BYTES) + lists * dimension * 4
    took = _SHARE * faces * dimension * _CANDIDATE_NS / 1e6
    return Candidate("lists-sq8", f"IVF{lists},SQ8", lists, held, held, took)


def _pca(faces: int, dimension: int, lists: int) -> Candidate:
    short = dimension // 4
    held = faces * (short + _ROW_BYTES) + lists * short * 4 + dimension * short * 4
    took = _SHARE * faces * short * _CANDIDATE_NS / 1e6
    key = f"PCA{short},IVF{lists},SQ8,Refine(SQ8)"
    return Candidate("lists-pca", key, lists, held, held + faces * dimension, took)


def _rabitq(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (dimension // 8 + 8 + _ROW_BYTES) + lists * dimension * 4 + dimension * dimension * 4
    took = _SHARE * faces * (dimension // 8 + 8) * 2 * _CANDIDATE_NS / 1e6
    key = f"RR{dimension},IVF{lists},RaBitQ,Refine(SQ8)"
    return Candidate("lists-rabitq", key, lists, held, held + faces * dimension, took)


def _graph(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (4 * dimension + 8 + _GRAPH_LINKS)
    return Candidate("graph", "HNSW32,Flat", 0, held, held, 1.0)


KINDS: dict[str, Callable[[int, int, int], Candidate]] = {
    "exact": _exact,
    "lists-pca": _pca,
    "lists-sq8": _sq8,
    "lists": _flat_lists,
    "lists-rabitq": _rabitq,
    "graph": _graph,
}
"""Every kind, in the order in which they are tried: faces, dimension and lists to what it takes."""


def choose_index(needs: IndexNeeds) -> Choice:
    """The kinds of index that do what is asked, best first.

    Raises:
        VersionError: none fits into the memory; the message names the smallest that could, with its bytes.
    """
    lists = lists_for(needs.faces)
    every = {kind: of(needs.faces, needs.dimension, lists) for kind, of in KINDS.items()}
    exact, fits, told = every["exact"], [], []
    for candidate in every.values():
        if said := _refusal(candidate, needs):
            told.append(f"{candidate.kind}: {said}")
        else:
            fits.append(candidate)
    if not fits:
        least = min(every.values(), key=lambda c: (_too_few(c, needs) is not None, c.memory_bytes))
        raise VersionError(
            f"no index of {needs.faces:,} faces of {needs.dimension} dimensions fits into {_size(needs.memory_bytes)}: the "
            f"smallest, {least.key}, holds {_size(least.memory_bytes)}; give --memory {_asked(least.memory_bytes)} or more"
        )
    if exact in fits:
        few = needs.faces < FEWEST_FOR_LISTS
        why = (
            f"exact search: {needs.faces:,} faces of {needs.dimension} dimensions are compared in about {exact.latency_ms:.2g} ms, "
            f"within {needs.latency_ms:g} ms, and hold {_size(exact.memory_bytes)} of {_size(needs.memory_bytes)}; "
            "nothing approximate has to prove itself"
        )
        if few:
            why += f"; fewer than {FEWEST_FOR_LISTS:,} faces are too few to train lists on"
        return Choice((exact,), tuple(told), why)
    why = (
        f"approximate search: comparing all {needs.faces:,} faces of {needs.dimension} dimensions would take about "
        f"{exact.latency_ms:.0f} ms a query and hold {_size(exact.memory_bytes)}, wanted {needs.latency_ms:g} ms within "
        f"{_size(needs.memory_bytes)}"
    )
    return Choice(tuple(fits), tuple(told), why)


def _refusal(candidate: Candidate, needs: IndexNeeds) -> str | None:
    """Why a kind is not built, or None."""
    if said := _too_few(candidate, needs):
        return said
    if candidate.memory_bytes > needs.memory_bytes:
        return f"holds {_size(candidate.memory_bytes)}, more than {_size(needs.memory_bytes)}"
    if candidate.kind == "graph" and not needs.append_only:
        return "nothing can be taken out of a graph, and faces may be removed"
    if candidate.kind == "exact" and candidate.latency_ms > needs.latency_ms and needs.faces >= FEWEST_FOR_LISTS:
        return f"takes about {candidate.latency_ms:.0f} ms a query, more than {needs.latency_ms:g} ms"
    return None


def _too_few(candidate: Candidate, needs: IndexNeeds) -> str | None:
    if candidate.lists and needs.faces < FEWEST_FOR_LISTS:
        return f"{needs.faces:,} faces are too few to train lists on, wanted {FEWEST_FOR_LISTS:,}"
    return None


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _asked(count: int) -> str:
    return f"{math.ceil(count / 2**20)}M"
