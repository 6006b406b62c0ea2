"""Whether the next version's index is a copy of the one before with faces added and removed, or made anew: one rule, in words.

An approximate index was trained on the faces that were there then. Adding and removing faces keeps what was learnt, and costs next to
nothing beside learning it again; how long that is good enough is told here by what was measured, not by how often it was done.
"""

from dataclasses import dataclass

from store.index_choice import RECALL_GATE, Choice

__all__ = ["MOST_BESIDE", "MOST_CHANGED", "Change", "Drift", "reason_to_rebuild", "update_in_words"]

MOST_CHANGED = 0.3
"""Share of the faces an index was trained on that may have come or gone since."""

MOST_BESIDE = 0.1
"""Share of a base's faces or photos that may have come or gone since, up to which a version is kept as changes to it.

What is kept beside is read, and searched, with every query, and who left lies in the files until a version is written whole again.
"""

_MOST_UNEVEN = 1.25  # times as many faces looked at by a query as when the lists were made
_MOST_LOST = 0.01  # of recall@10
_MOST_MISFIT = 1.1  # times the squared distance to what the codes say
_LEAST_FOUND = 0.9  # of added faces, by their own vectors


@dataclass(frozen=True)
class Change:
    """What the next version asks of the index before.

    Attributes:
        parent: its version.
        kind: of the index, one of KINDS.
        says_training: its manifest says what it was trained on.
        same_encoder, same_contract, same_budget: as the next version's.
        trained_faces: that it was trained on.
        changed_before: faces that came or went since it was trained, up to the parent.
        added, removed: faces that come and go now.
    """

    parent: int
    kind: str
    says_training: bool
    same_encoder: bool
    same_contract: bool
    same_budget: bool
    trained_faces: int
    changed_before: int
    added: int
    removed: int

    @property
    def changed(self) -> int:
        """Faces that came or went since it was trained."""
        return self.changed_before + self.added + self.removed


@dataclass(frozen=True)
class Drift:
    """What became of a changed index.

    Attributes:
        unevenness_then, unevenness_now: of its lists, when it was trained and now; None where it has none.
        misfit_then, misfit_now: squared distance of the faces to what its short codes say of them.
        recall_then, recall: recall@10 on held-out queries; None where nobody wrote it down.
        least: what that is above, nineteen times of twenty.
        wanted: what it is tuned for.
        added_found: share of some added faces that are found by their own vectors.
    """

    unevenness_then: float | None
    unevenness_now: float | None
    misfit_then: float
    misfit_now: float
    recall_then: float | None
    recall: float
    least: float
    wanted: float
    added_found: float = 1.0


def reason_to_rebuild(change: Change, choice: Choice, drift: Drift | None = None) -> str | None:
    """Why an index is made anew, as a clause; None where a changed copy of the one before will do.

    Args:
        change: what the next version asks of it.
        choice: of kinds, for the next version's faces and budget.
        drift: of the changed copy; None while there is none yet.
    """
    said = _unlike(change) or _outgrown(change, choice)
    return said if said or drift is None else _drifted(drift)


def _unlike(change: Change) -> str | None:
    if not change.same_encoder:
        return f"version {change.parent} was embedded by another encoder"
    if not change.same_contract:
        return f"version {change.parent}'s faces were found by another contract"
    if not change.same_budget:
        return f"version {change.parent}'s index had another budget"
    return None


def _outgrown(change: Change, choice: Choice) -> str | None:
    if not choice.candidates:
        return "an exact index is its vectors and nothing else: nothing is saved by a copy"
    if change.kind not in {candidate.kind for candidate in choice.candidates}:
        return f"version {change.parent}'s index is of the kind {change.kind}, which is not for so many faces and this budget"
    if not change.says_training:
        return f"version {change.parent} does not say what its index was trained on"
    if change.changed > MOST_CHANGED * change.trained_faces:
        return (
            f"{change.changed:,} faces have come or gone since it was trained on {change.trained_faces:,}, "
            f"more than {MOST_CHANGED:.0%}"
        )
    return None


def _drifted(drift: Drift) -> str | None:
    then, now = drift.unevenness_then, drift.unevenness_now
    if then is not None and now is not None and now > _MOST_UNEVEN * then:
        return (
            f"with the changes a query would look at {now / then:.2f} times as many faces, for its lists fill unevenly"
        )
    if drift.misfit_now > _MOST_MISFIT * drift.misfit_then:
        return (
            f"with the changes its codes miss the faces by {_times(drift.misfit_now, drift.misfit_then):.2f} times as much: "
            "those that came are unlike those it was trained on"
        )
    if drift.added_found < _LEAST_FOUND:
        return f"of the faces added only {drift.added_found:.0%} were found by their own vectors"
    if drift.recall < RECALL_GATE:
        return f"with the changes recall@10 was {drift.recall:.3f}, below the gate's {RECALL_GATE}"
    lost = drift.recall_then is None or drift.recall < drift.recall_then - _MOST_LOST
    if drift.least < drift.wanted and lost:
        before = "" if drift.recall_then is None else f", {drift.recall_then:.3f} before"
        return f"with the changes recall@10 was {drift.recall:.3f}{before}: not sure to reach {drift.wanted}"
    return None


def update_in_words(change: Change, drift: Drift, *, as_changes: bool = False) -> str:
    """What the manifest says of a changed copy, or of changes that are kept beside the index before."""
    said = (
        f"{'changes beside' if as_changes else 'a copy of'} version {change.parent}'s index, {change.added:,} faces added and {change.removed:,} removed; "
        f"{change.changed / max(1, change.trained_faces):.1%} of the {change.trained_faces:,} it was trained on have come or "
        f"gone since; its codes miss the faces by {_times(drift.misfit_now, drift.misfit_then):.2f} times as much as then"
    )
    if drift.unevenness_then and drift.unevenness_now:
        said += f", its lists are {drift.unevenness_now / drift.unevenness_then:.2f} times as uneven"
    return f"{said}; recall@10 {drift.recall:.3f} on held-out queries"


def _times(now: float, then: float) -> float:
    return now / then if then else 1.0 if not now else float("inf")
