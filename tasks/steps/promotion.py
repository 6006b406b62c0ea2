"""The gate a trained encoder must pass before later builds use it."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.card import parse_card
from models.encoder import load_encoder
from models.metrics import precision_at_1
from models.people import PeopleMetrics
from store.encoders import encoder_in_use, read_encoder
from store.storage import Storage
from store.versions import current_number, read_version
from tasks.steps.labelled_faces import face_inputs

__all__ = ["PROMOTION_MARGIN", "Candidate", "Promotion", "judge", "rivals_of"]

PROMOTION_MARGIN = 0.01
"""By so much precision@1 must be better, on people nothing was learnt from or chosen by."""


@dataclass(frozen=True)
class Candidate:
    """An encoder in the comparison: its part in it, its id (or "scratch"), and precision@1 on the held-out people."""

    role: str
    encoder: str
    precision_at_1: float


@dataclass(frozen=True)
class Promotion:
    """Whether an encoder is promoted, why in a sentence, and what it was compared with.

    Attributes:
        promoted: whether later builds use it by default.
        why: the reason.
        margin: by which it had to be better.
        queries: faces asked with; one more right answer is worth 1 / queries.
        table: the new encoder first, then those it had to beat.
    """

    promoted: bool
    why: str
    margin: float
    queries: int
    table: tuple[Candidate, ...]

    def as_json(self) -> dict[str, Any]:
        """For the encoder's card."""
        return asdict(self) | {"table": [asdict(candidate) for candidate in self.table]}


def judge(new: PeopleMetrics, rivals: Sequence[Candidate], *, margin: float, queries: int) -> Promotion:
    """Promote the new encoder only if it beats every rival by the margin.

    Args:
        new: its figures on the held-out people.
        rivals: on the same people.
        margin: in precision@1.
        queries: faces asked with.
    """
    table = (Candidate("trained", "this one", new.precision_at_1), *rivals)
    lost = next((r for r in rivals if new.precision_at_1 < r.precision_at_1 + margin), None)
    if lost is not None:
        why = (
            f"kept, not promoted: precision@1 {new.precision_at_1:.3f} on held-out people is not {margin:g} better than "
            f"{lost.precision_at_1:.3f} of the {lost.role}"
        )
        return Promotion(False, why, margin, queries, table)
    beaten = " and ".join(f"{r.precision_at_1:.3f} of the {r.role}" for r in rivals)
    why = f"promoted: precision@1 {new.precision_at_1:.3f} on held-out people, against {beaten}"
    return Promotion(True, why, margin, queries, table)


def rivals_of(
    storage: Storage,
    *,
    start: str,
    before: PeopleMetrics,
    rows: Sequence[dict[str, Any]],
    labels: Sequence[str],
) -> list[Candidate]:
    """Whom a new encoder must beat: the frozen one it started from, and the one in use, each on the same faces.

    Args:
        storage: the store.
        start: "scratch", or the id of the encoder it started from.
        before: the figures with the weights it started from.
        rows: the held-out people's faces, as `labelled_faces` gives them.
        labels: their people.
    """
    rivals = [Candidate("network it started from", start, before.precision_at_1)]
    in_use = encoder_in_use(storage)
    if in_use is None and current_number(storage) is not None:
        in_use = read_version(storage).manifest.encoder.id
    if in_use is not None and in_use != start:
        rivals.append(Candidate("encoder in use", in_use, _precision_of(storage, in_use, rows, labels)))
    return rivals


def _precision_of(storage: Storage, encoder: str, rows: Sequence[dict[str, Any]], labels: Sequence[str]) -> float:
    """Precision@1 of an encoder on faces cut as its own card says."""
    stored = read_encoder(storage, encoder)
    net = load_encoder(parse_card(stored.card, where=f"encoder {encoder}"), stored.weights, threads=os.cpu_count() or 1)
    return precision_at_1(net.embed(face_inputs(rows, net.card)), labels)
