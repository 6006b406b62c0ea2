"""Ask an opened index: search settings and filters travel with the call, the index itself is never changed.

An index is a FAISS index under an IndexIDMap: inside, rows are numbered from 0; outside, they are face ids. Q queries of D
dimensions, K answers a query, N faces. A `ChangedIndex` is two of them, and is asked like one.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from store.cores import one_core
from store.errors import ArtifactError
from store.index_changed import ChangedIndex
from store.index_filter import Allowed, AllowedOfBoth, Filter, allow, ids_by_row
from store.index_scan import pays, scan_allowed

__all__ = [
    "NOBODY",
    "Parts",
    "SearchSettings",
    "index_size",
    "indexed_ids",
    "parts_of",
    "search",
]

NOBODY = -1
"""Stands in the place of a face id where an approximate search found fewer than were asked for; its cosine is -inf."""

_TUNED_FOR = 10  # faces, in whose recall settings are tuned
_MORE_LEFT = 4  # asked for beside those wanted where some count no more, and times as many as are expected to
_FEW = 10_000  # so many faces are compared one by one in a few milliseconds


@dataclass(frozen=True)
class SearchSettings:
    """How hard an approximate index looks; an exact one needs none of it.

    Attributes:
        nprobe: lists that are looked into, of an index of lists.
        refine: answers that are compared again by their finer codes, as a multiple of k, or of ten where k is less.
        ef: candidates that a graph keeps.
    """

    nprobe: int | None = None
    refine: float | None = None
    ef: int | None = None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Those in a manifest's index parameters."""
        return cls(**{name: parameters.get(name) for name in ("nprobe", "refine", "ef")})

    def as_json(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def index_size(index: Any) -> tuple[int, int]:
    """The number of vectors and their dimension."""
    return int(index.ntotal), int(index.d)


def indexed_ids(index: Any) -> npt.NDArray[np.int64]:
    """The face ids in the index, int64, ascending."""
    if isinstance(index, ChangedIndex):
        return index.ids
    ids_N: npt.NDArray[np.int64] = np.sort(faiss.vector_to_array(index.id_map))
    return ids_N


@dataclass(frozen=True)
class Parts:
    """What an index is made of, under its face ids.

    Attributes:
        whole: what is searched.
        finer: the codes by which the candidates are compared again, by row; None where there are none.
        base: what candidates come from: `whole`, where nothing is compared again.
        inner: what holds the codes by which candidates are found: the base behind its turn.
        turn: what vectors are turned by before they are looked for in the base; None where they are not.
        lists: the lists, of an index of lists.
        graph: the graph, of an index that is one.
        blind: candidates come from codes that are compared in blocks, which know no filter.
    """

    whole: Any
    finer: Any | None
    base: Any
    inner: Any
    turn: Any | None
    lists: Any | None
    graph: Any | None
    blind: bool


def parts_of(index: Any) -> Parts:
    """An opened index taken apart, of a changed one its base; nothing is copied."""
    index = index.base if isinstance(index, ChangedIndex) else index
    whole = faiss.downcast_index(index.index)
    refined = isinstance(whole, faiss.IndexRefine)
    base = faiss.downcast_index(whole.base_index) if refined else whole
    turned = isinstance(base, faiss.IndexPreTransform)
    inner = faiss.downcast_index(base.index) if turned else base
    return Parts(
        whole=whole,
        finer=faiss.downcast_index(whole.refine_index) if refined else None,
        base=base,
        inner=inner,
        turn=faiss.downcast_VectorTransform(base.chain.at(0)) if turned else None,
        lists=inner if isinstance(inner, faiss.IndexIVF) else None,
        graph=inner if isinstance(inner, faiss.IndexHNSW) else None,
        blind=isinstance(inner, faiss.IndexFastScan),
    )


def search(
    index: Any,
    queries_QD: npt.NDArray[np.float32],
    *,
    k: int,
    settings: SearchSettings | None = None,
    allowed_A: Filter | npt.NDArray[np.int64] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The k most similar faces of each query, equal cosines ordered by face id.

    A filter acts inside the search: what it keeps out takes nobody's place. An approximate index looks into more lists the fewer
    faces are allowed, and at all that are allowed where they are few.

    Args:
        index: as opened.
        queries_QD: float32, (Q, D), unit length.
        k: how many; fewer come back where fewer are there or allowed.
        settings: of an approximate index; those that its manifest names.
        allowed_A: who may be found: face ids, or a filter that `allow` made of them; None allows all.

    Returns:
        cosines (Q, K) float32 falling, and face ids (Q, K) int64, K = min(k, faces that are allowed); NOBODY where an
        approximate index found fewer.

    Raises:
        ArtifactError: the dimensions differ.
    """
    dimension = index_size(index)[1]
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dimension:
        raise ArtifactError(f"the index holds vectors of {dimension}, the query has shape {queries_QD.shape}")
    chosen = allow(index, allowed_A) if isinstance(allowed_A, np.ndarray) else allowed_A
    queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
    settings = settings or SearchSettings()
    with one_core() if len(queries_QD) == 1 else nullcontext():  # there is nothing to share
        if isinstance(index, ChangedIndex):
            both = chosen if isinstance(chosen, AllowedOfBoth) else None
            return _found_in_both(index, queries_QD, k, settings, both)
        return _found_in(index, queries_QD, k, settings, chosen if isinstance(chosen, Allowed) else None)


def _found_in(
    index: Any, queries_QD: npt.NDArray[np.float32], k: int, settings: SearchSettings, chosen: Allowed | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """As `search` gives them, of an index in one piece."""
    there = int(index.ntotal) if chosen is None else chosen.count
    wanted = min(k, there)
    if wanted <= 0:  # FAISS refuses to look for nothing
        return np.zeros((len(queries_QD), 0), np.float32), np.zeros((len(queries_QD), 0), np.int64)
    return _nearest(index, queries_QD, wanted, min(wanted + 1, there), settings, chosen)


def _found_in_both(
    index: ChangedIndex,
    queries_QD: npt.NDArray[np.float32],
    k: int,
    settings: SearchSettings,
    chosen: AllowedOfBoth | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The nearest of the base that count, and of those added, sorted in among each other."""
    if chosen is None:
        parts = (_that_count(index, queries_QD, k, settings), _found_in(index.added, queries_QD, k, settings, None))
    else:
        parts = (
            _found_in(index.base, queries_QD, k, settings, chosen.base),
            _found_in(index.added, queries_QD, k, settings, chosen.added),
        )
    cosines, ids = (np.concatenate([part[n] for part in parts], axis=1) for n in (0, 1))
    order = np.lexsort((ids, -cosines), axis=1)[:, : max(0, k)]
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _that_count(
    index: ChangedIndex, queries_QD: npt.NDArray[np.float32], k: int, settings: SearchSettings
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The base's nearest but for those that count no more: a few more are asked for, and more again where many of them were near.

    No filter is used, which would take longer than the few.
    """
    total, left = int(index.base.ntotal), len(index.left)
    wanted = max(0, min(k, total - left))
    if not left or not wanted:
        return _found_in(index.base, queries_QD, wanted, settings, None)
    more = math.ceil(_MORE_LEFT * wanted * left / total) + _MORE_LEFT
    cosines_QK = np.full((len(queries_QD), wanted), -np.inf, np.float32)
    ids_QK = np.full((len(queries_QD), wanted), NOBODY, np.int64)
    open_Q = np.arange(len(queries_QD))
    while len(open_Q):
        asked = min(wanted + min(more, left), total)
        compared = (settings.refine or 1) * max(wanted, _TUNED_FOR) + asked - wanted
        effort = replace(settings, refine=settings.refine and compared / max(asked, _TUNED_FOR))
        cosines, ids = _found_in(index.base, queries_QD[open_Q], asked, effort, None)
        counts = ~_among(ids, index.left)
        first = np.argsort(~counts, axis=1, kind="stable")[:, :wanted]  # those that count, in their order
        there = np.take_along_axis(counts, first, axis=1)
        cosines_QK[open_Q] = np.where(there, np.take_along_axis(cosines, first, axis=1), np.float32(-np.inf))
        ids_QK[open_Q] = np.where(there, np.take_along_axis(ids, first, axis=1), NOBODY)
        open_Q = open_Q[~there.all(axis=1)] if asked < min(total, wanted + left) else open_Q[:0]
        more *= 4
    return cosines_QK, ids_QK


def _among(ids_QK: npt.NDArray[np.int64], sorted_L: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    if not len(sorted_L):
        return np.zeros(ids_QK.shape, np.bool_)
    at = np.minimum(np.searchsorted(sorted_L, ids_QK), len(sorted_L) - 1)
    among: npt.NDArray[np.bool_] = sorted_L[at] == ids_QK
    return among


def _nearest(
    index: Any,
    queries_QD: npt.NDArray[np.float32],
    wanted: int,
    asked: int,
    settings: SearchSettings,
    chosen: Allowed | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """As `search` gives them; so many are asked for at first, and more where a tie goes on behind the last place."""
    there = int(index.ntotal) if chosen is None else chosen.count
    cosines, rows = _ask(index, queries_QD, asked, settings, chosen)
    while asked < there and np.any((cosines[:, -1] == cosines[:, wanted - 1]) & (rows[:, -1] >= 0)):
        asked = min(2 * asked, there)
        cosines, rows = _ask(index, queries_QD, asked, settings, chosen)
    found = rows >= 0
    ids = np.where(found, ids_by_row(index)[np.maximum(rows, 0)], NOBODY)
    cosines = np.where(found, cosines, np.float32(-np.inf))
    order = np.lexsort((ids, -cosines), axis=1)[:, :wanted]
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _ask(
    index: Any, queries_QD: npt.NDArray[np.float32], k: int, settings: SearchSettings, allowed: Allowed | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Cosines and row numbers of the k nearest, -1 where fewer were found."""
    parts, total = parts_of(index), int(index.ntotal)
    there = total if allowed is None else allowed.count
    compared = math.ceil(_compared_again(settings, k) * k)
    if (
        allowed is not None
        and parts.blind
        and parts.finer is not None
        and there > _FEW
        and pays(there, total, compared)
    ):
        return scan_allowed(parts.base, parts.finer, queries_QD, k=k, compared=compared, bits=allowed.bits, there=there)
    selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bits)
    few = selector is not None and (parts.blind or there <= _few(parts, settings, total))
    whole, exact = parts.whole, None if selector is None else faiss.SearchParameters(sel=selector)
    if few and parts.finer is not None:  # the finer codes of all that are allowed
        whole, parameters = parts.finer, exact
    elif few and parts.graph is not None:
        whole, parameters = faiss.downcast_index(parts.graph.storage), exact
    elif parts.lists is not None:
        parameters = _list_parameters(parts, settings, selector, k=k, share=0.0 if few else there / total)
    elif parts.blind and parts.finer is not None:
        parameters = _refining(settings, k, None)
    elif parts.graph is not None:
        ef = max(k, int((settings.ef or 64) * total / there))
        parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
    else:
        parameters = exact
    found: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] = whole.search(queries_QD, k, params=parameters)
    return found


def _few(parts: Parts, settings: SearchSettings, total: int) -> float:
    """How many allowed faces are compared one by one: no more than an unfiltered search compares twice, or a few thousand."""
    if parts.lists is None:
        return _FEW
    return max(_FEW, 2 * total * (settings.nprobe or 1) / int(parts.lists.nlist))


def _list_parameters(parts: Parts, settings: SearchSettings, selector: Any, *, k: int, share: float) -> Any:
    """For an index of lists; the smaller the share of its faces that is allowed, the more lists are looked into."""
    assert parts.lists is not None  # noqa: S101
    nlist, nprobe = int(parts.lists.nlist), settings.nprobe or 1
    chosen = nlist if nprobe >= nlist * share else math.ceil(nprobe / share)
    kind = faiss.SearchParametersIVF
    if isinstance(parts.lists, faiss.IndexIVFRaBitQ):
        kind = faiss.IVFRaBitQSearchParameters
    elif isinstance(parts.lists, faiss.IndexIVFPQ):
        kind = faiss.IVFPQSearchParameters
    parameters = kind(nprobe=chosen, sel=selector)
    if parts.turn is not None:
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    if parts.finer is None:
        return parameters
    return _refining(settings, k, parameters)


def _refining(settings: SearchSettings, k: int, base: Any) -> Any:
    """For an index with finer codes."""
    return faiss.IndexRefineSearchParameters(k_factor=_compared_again(settings, k), base_index_params=base)


def _compared_again(settings: SearchSettings, k: int) -> float:
    """Candidates, as a multiple of k; who asks for one face has as many compared again as who asks for ten."""
    return float(settings.refine or 1) * max(1.0, _TUNED_FOR / k)
