"""Ask an opened index: search settings and filters travel with the call, the index itself is never changed.

An index is a FAISS index under an IndexIDMap: inside, rows are numbered from 0; outside, they are face ids. Q queries of D
dimensions, K answers a query, N faces.
"""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from store.cores import one_core
from store.errors import ArtifactError
from store.index_scan import pays, scan_allowed

__all__ = [
    "NOBODY",
    "Allowed",
    "Parts",
    "SearchSettings",
    "allow",
    "allow_rows",
    "index_size",
    "indexed_ids",
    "leave_out",
    "parts_of",
    "search",
]

NOBODY = -1
"""Stands in the place of a face id where an approximate search found fewer than were asked for; its cosine is -inf."""

_TUNED_FOR = 10  # faces, in whose recall settings are tuned
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


@dataclass(frozen=True)
class Allowed:
    """The faces of one index that may be answered with; made by `allow` and its like, good for any number of searches of that index.

    Attributes:
        bits: uint8, a bit a row, lowest first.
        count: how many are set.
    """

    bits: npt.NDArray[np.uint8]
    count: int


def index_size(index: Any) -> tuple[int, int]:
    """The number of vectors and their dimension."""
    return int(index.ntotal), int(index.d)


def indexed_ids(index: Any) -> npt.NDArray[np.int64]:
    """The face ids in the index, int64, ascending."""
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
    """An opened index taken apart; nothing is copied."""
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


def allow(
    index: Any, face_ids: npt.NDArray[np.int64] | None = None, *, without: npt.NDArray[np.int64] | None = None
) -> Allowed:
    """A filter that lets only these faces through; ids that the index does not hold are passed over.

    Args:
        index: as opened.
        face_ids: int64, in any order; None lets all through.
        without: int64, in any order: of them who may not be found.
    """
    ids_N = _ids(index)
    mask_N = np.full(len(ids_N), face_ids is None, np.bool_)
    order = _order(ids_N)
    for chosen, found in ((face_ids, True), (without, False)):
        if chosen is not None and len(chosen) and len(ids_N):
            mask_N[_rows(ids_N, order, chosen)] = found
    return _allowed(mask_N)


def allow_rows(index: Any, passes_N: npt.NDArray[np.bool_]) -> Allowed:
    """A filter that lets through whom a mask says, which goes by rising face id."""
    ids_N = _ids(index)
    if (order := _order(ids_N)) is None:
        return _allowed(passes_N)
    mask_N = np.zeros(len(ids_N), np.bool_)
    mask_N[order] = passes_N
    return _allowed(mask_N)


def leave_out(index: Any, allowed: Allowed | None, face_ids: npt.NDArray[np.int64]) -> Allowed:
    """A filter without some of those whom another lets through; None lets all through."""
    if allowed is None:
        return allow(index, without=face_ids)
    ids_N = _ids(index)
    rows = np.unique(_rows(ids_N, _order(ids_N), face_ids)) if len(ids_N) else np.zeros(0, np.int64)
    bits, bit = allowed.bits.copy(), np.left_shift(1, rows & 7).astype(np.uint8)
    there = int(np.count_nonzero(bits[rows >> 3] & bit))
    np.bitwise_and.at(bits, rows >> 3, ~bit)
    return Allowed(bits=bits, count=allowed.count - there)


def _allowed(mask_N: npt.NDArray[np.bool_]) -> Allowed:
    return Allowed(bits=np.packbits(mask_N, bitorder="little"), count=int(np.count_nonzero(mask_N)))


def _order(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """What sorts the ids; None where they ascend, as they do in every index that a build has written."""
    return None if np.all(ids_N[1:] > ids_N[:-1]) else np.argsort(ids_N, kind="stable")


def _rows(
    ids_N: npt.NDArray[np.int64], order: npt.NDArray[np.int64] | None, wanted_M: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Row numbers of those ids that are there; `order` sorts the ids where they do not ascend."""
    sorted_N = ids_N if order is None else ids_N[order]
    at_M = np.minimum(np.searchsorted(sorted_N, wanted_M), len(ids_N) - 1)
    at_M = at_M[sorted_N[at_M] == wanted_M]
    rows: npt.NDArray[np.int64] = at_M if order is None else order[at_M]
    return rows


def search(
    index: Any,
    queries_QD: npt.NDArray[np.float32],
    *,
    k: int,
    settings: SearchSettings | None = None,
    allowed_A: Allowed | npt.NDArray[np.int64] | None = None,
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
    total, dimension = index_size(index)
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dimension:
        raise ArtifactError(f"the index holds vectors of {dimension}, the query has shape {queries_QD.shape}")
    chosen = allowed_A if allowed_A is None or isinstance(allowed_A, Allowed) else allow(index, allowed_A)
    there = total if chosen is None else chosen.count
    wanted = min(k, there)
    if wanted <= 0:  # FAISS refuses to look for nothing
        return np.zeros((len(queries_QD), 0), np.float32), np.zeros((len(queries_QD), 0), np.int64)
    queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
    asked = min(wanted + 1, there)
    with one_core() if len(queries_QD) == 1 else nullcontext():  # there is nothing to share
        return _nearest(index, queries_QD, wanted, asked, settings or SearchSettings(), chosen)


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
    ids = np.where(found, _ids(index)[np.maximum(rows, 0)], NOBODY)
    cosines = np.where(found, cosines, np.float32(-np.inf))
    order = np.lexsort((ids, -cosines), axis=1)[:, :wanted]
    return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _ids(index: Any) -> npt.NDArray[np.int64]:
    """Face ids by row, as they lie in the index."""
    total = int(index.ntotal)
    ids_N: npt.NDArray[np.int64] = faiss.rev_swig_ptr(index.id_map.data(), total) if total else np.zeros(0, np.int64)
    return ids_N


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
