"""Which index a gallery gets: one pure function of its size, its dimension and what may be spent, with its reasons in words.

| kind | FAISS | bytes a face held in memory, of D dimensions | what it is for |
| --- | --- | --- | --- |
| exact | Flat | 4 D | as long as comparing every face is quick enough |
| scan | PCA 3D/8, PQ of 4 bits for two axes, refined by SQ8 | 3D / 32, and D on disk | every face by a short code, the nearest again by a byte a dimension |
| lists-sq8 | IVF, SQ8 | D | a byte a dimension, some lists only |
| lists-rabitq | rotation, IVF, RaBitQ, refined by SQ8 | D / 8, and D on disk | some lists only, candidates by one bit a dimension |
| lists | IVF, Flat | 4 D | some lists only, cosines exact |

What refines lies in the file by row and is read for candidates only: mapped, it need not fit into memory. There is no graph (HNSW)
among them: it is for galleries from which nothing is ever removed, and here anybody may be forgotten.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from store.errors import VersionError

__all__ = [
    "FEWEST_FOR_CODES",
    "KINDS",
    "RECALL_GATE",
    "AskedBudget",
    "Candidate",
    "Choice",
    "IndexBudget",
    "choose_index",
    "in_words",
    "kind_for",
    "lists_for",
    "memory_of",
    "scanned_axes",
]

RECALL_GATE = 0.95
"""Least recall@10 against exact search that a version must reach to be published; the one place it is set."""

FEWEST_FOR_CODES = 10_000
"""Of fewer faces nothing approximate is made: 256 lists want 39 faces each, and comparing all of them takes a few milliseconds."""

_LIST_FACES = 39  # k-means wants so many a list, as FAISS has it
_MOST_LISTS = 16_384
_ROW_BYTES = 16  # face id, and row number in a list
_EXACT_NS = 0.36  # of one core, a dimension of a compared face: a rule of thumb, like the next two; what is published is measured
_CODE_NS = 0.12  # a byte of a code
_SHARE = 0.35  # of all lists, which the hardest queries need at recall 0.95
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class IndexBudget:
    """What an index may take, and how right it must be.

    Attributes:
        memory_bytes: that it may hold while it answers.
        latency_ms: of one query on one core.
        recall: recall@10 that it is tuned for, from RECALL_GATE to under 1.

    Raises:
        ValueError: a value out of range; the message names it.
    """

    memory_bytes: int = 4 * 2**30
    latency_ms: float = 20.0
    recall: float = RECALL_GATE

    def __post_init__(self) -> None:
        """Check every value."""
        if self.memory_bytes < 1:
            raise ValueError(f"memory is {self.memory_bytes} bytes: wanted at least 1")
        if not 0 < self.latency_ms < math.inf:
            raise ValueError(f"latency is {self.latency_ms:g} ms: wanted more than 0")
        if not RECALL_GATE <= self.recall < 1:
            raise ValueError(
                f"recall is {self.recall:g}: wanted from {RECALL_GATE}, which the gate asks for, to under 1"
            )

    @classmethod
    def of(cls, recorded: Mapping[str, Any] | None) -> Self:
        """As a manifest has it; the default where it has none."""
        return (
            cls(**{name: recorded[name] for name in cls.__dataclass_fields__ if name in recorded})
            if recorded
            else cls()
        )

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class AskedBudget:
    """What a build was told of its index's budget; None where it was told nothing.

    Attributes:
        memory_bytes, latency_ms, recall: as of IndexBudget.

    Raises:
        ValueError: a value out of range; the message names it.
    """

    memory_bytes: int | None = None
    latency_ms: float | None = None
    recall: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        self.after(IndexBudget())

    def after(self, before: IndexBudget) -> IndexBudget:
        """The budget: as asked, and as it was before where nothing was asked."""
        return replace(before, **{name: value for name, value in asdict(self).items() if value is not None})


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
        exact: exact search; None where it does not fit into the memory.
        candidates: the approximate kinds that fit, best first: they are measured, and the quickest that is right enough is built.
            Empty where the gallery gets exact search without more ado.
        refused: a sentence for each approximate kind that does not fit.
        why: in words.
    """

    exact: Candidate | None
    candidates: tuple[Candidate, ...]
    refused: tuple[str, ...]
    why: str


def memory_of(text: str) -> int:
    """Bytes, from `512M`, `4G` or `4GiB`.

    Raises:
        ValueError: it is no size; the message says what one looks like.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(
            f"memory is {text!r}: wanted a number of bytes with K, M, G or T behind it, such as 512M or 4G"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def lists_for(faces: int) -> int:
    """How many lists: about four times the root, a power of two, each with enough faces to be trained by; at most 16,384."""
    wanted = 4 * math.sqrt(max(1, faces))
    most = min(_MOST_LISTS, max(1, faces // _LIST_FACES))
    return 1 << max(0, min(int(math.log2(most)), round(math.log2(wanted))))


def scanned_axes(dimension: int) -> int:
    """How many of the axes along which faces differ most a scan's short code tells of, two by four bits.

    Three eighths of all are the best of those tried at a million drawn faces: with half of them a query takes a fifth longer at the
    same recall@10, and with fewer so many more candidates have to be compared again that nothing is won.
    """
    return 2 * max(1, 3 * dimension // 16)


def _exact(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (4 * dimension + 8)
    return Candidate("exact", "Flat", 0, held, held, faces * dimension * _EXACT_NS / 1e6)


def _scan(faces: int, dimension: int, lists: int) -> Candidate:
    axes = scanned_axes(dimension)
    code = -(-axes // 4)
    held = faces * (code + 8) + 4 * axes * dimension
    key = f"PCA{axes},PQ{axes // 2}x4fs,Refine(SQ8)"
    return Candidate("scan", key, 0, held, held + faces * dimension, faces * code * _CODE_NS / 1e6)


def _flat_lists(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (4 * dimension + _ROW_BYTES) + lists * dimension * 4
    return Candidate("lists", f"IVF{lists},Flat", lists, held, held, _SHARE * faces * dimension * _EXACT_NS / 1e6)


def _sq8(faces: int, dimension: int, lists: int) -> Candidate:
    held = faces * (dimension + _ROW_BYTES) + lists * dimension * 4
    took = _SHARE * faces * dimension * _CODE_NS / 1e6
    return Candidate("lists-sq8", f"IVF{lists},SQ8", lists, held, held, took)


def _rabitq(faces: int, dimension: int, lists: int) -> Candidate:
    code = dimension // 8 + 8
    held = faces * (code + _ROW_BYTES) + lists * dimension * 4 + dimension * dimension * 4
    took = _SHARE * faces * code * 2 * _CODE_NS / 1e6
    key = f"RR{dimension},IVF{lists},RaBitQ,Refine(SQ8)"
    return Candidate("lists-rabitq", key, lists, held, held + faces * dimension, took)


KINDS: dict[str, Callable[[int, int, int], Candidate]] = {
    "exact": _exact,
    "scan": _scan,
    "lists-sq8": _sq8,
    "lists-rabitq": _rabitq,
    "lists": _flat_lists,
}
"""Every kind, in the order in which they are tried: faces, dimension and lists to what it takes."""


def kind_for(kind: str, faces: int, dimension: int) -> Candidate:
    """A kind for so many faces; exact search where they are too few for it, or where nobody knows the kind."""
    known = kind if kind in KINDS and _cannot(faces, dimension) is None else "exact"
    return KINDS[known](faces, dimension, lists_for(faces))


def choose_index(faces: int, dimension: int, budget: IndexBudget) -> Choice:
    """The kinds of index that do what is asked, best first.

    Args:
        faces: in it.
        dimension: of each.
        budget: what it may take.

    Raises:
        VersionError: none fits into the memory; the message names the smallest that could, with its bytes.
    """
    lists = lists_for(faces)
    exact, *others = (of(faces, dimension, lists) for of in KINDS.values())
    refusals = {candidate: _refusal(candidate, faces, dimension, budget) for candidate in others}
    fits = tuple(candidate for candidate, said in refusals.items() if said is None)
    too_much = exact.memory_bytes > budget.memory_bytes
    if too_much and not fits:
        least = min((exact, *(c for c in others if _cannot(faces, dimension) is None)), key=lambda c: c.memory_bytes)
        raise VersionError(
            f"no index of {faces:,} faces of {dimension} dimensions fits into {in_words(budget.memory_bytes)}: the smallest, "
            f"{least.key}, holds {in_words(least.memory_bytes)}; give --memory {_asked(least.memory_bytes)} or more"
        )
    all_faces = f"{faces:,} faces of {dimension} dimensions"
    refused = tuple(f"{candidate.kind}: {said}" for candidate, said in refusals.items() if said)
    slow = exact.latency_ms > budget.latency_ms
    if not too_much and (not slow or not fits):
        why = (
            f"exact search: {all_faces} are compared in about {_ms(exact.latency_ms)} ms, {'wanted' if slow else 'within'} "
            f"{budget.latency_ms:g} ms, and hold {in_words(exact.memory_bytes)} of {in_words(budget.memory_bytes)}; "
            "nothing approximate has to prove itself"
        )
        if few := _cannot(faces, dimension):
            why += f"; {few}"
        return Choice(exact, (), refused, why)
    said = (
        f"holds {in_words(exact.memory_bytes)}, more than {in_words(budget.memory_bytes)}"
        if too_much
        else f"takes about {_ms(exact.latency_ms)} ms a query, more than {budget.latency_ms:g} ms"
    )
    why = f"approximate search: exact search among {all_faces} {said}"
    return Choice(None if too_much else exact, fits, refused, why)


def _refusal(candidate: Candidate, faces: int, dimension: int, budget: IndexBudget) -> str | None:
    """Why an approximate kind is not built, or None."""
    if candidate.memory_bytes > budget.memory_bytes:
        return f"holds {in_words(candidate.memory_bytes)}, more than {in_words(budget.memory_bytes)}"
    return _cannot(faces, dimension)


def _cannot(faces: int, dimension: int) -> str | None:
    """Why nothing approximate can be made, or None."""
    if faces < FEWEST_FOR_CODES:
        return f"{faces:,} faces are too few to train on, wanted {FEWEST_FOR_CODES:,}"
    if dimension % 8:
        return f"codes want dimensions by eights, not {dimension}"
    return None


def in_words(count: int) -> str:
    """`1.91 GiB`."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"


def _asked(count: int) -> str:
    return f"{math.ceil(count / 2**20)}M"
