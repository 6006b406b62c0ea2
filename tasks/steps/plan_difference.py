"""What of a plan is not as the version before tells it, where that is little: what a version kept as changes is made of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.index_change import MOST_BESIDE
from store.schemas import PLAN, PLANNED

__all__ = ["Difference", "difference_of"]

_TOLD = [name for name in PLAN.names if name != "row_before"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """Rows that came or changed, and rows that went or changed.

    Attributes:
        came: PLANNED, by rising uri: rows of the plan, each with its row number among all of them.
        left: int64, ascending: rows of the version before that the plan does not hold as they are.
    """

    came: pa.Table
    left: npt.NDArray[np.int64]


def difference_of(planned: pa.Table, before: pa.Table) -> Difference | None:
    """The difference; None where much differs.

    Args:
        planned: PLAN, by rising uri.
        before: VERSION_PHOTOS of the version before, which `row_before` numbers.
    """
    named = pc.is_valid(planned["row_before"]).to_numpy()
    rows = planned["row_before"].filter(pa.array(named)).to_numpy()
    most = MOST_BESIDE * max(1, before.num_rows)
    if len(named) - len(rows) > most or before.num_rows - len(rows) > most:
        return None
    now, then = planned.filter(pa.array(named)), before.select(_TOLD).take(pa.array(rows))
    same = np.ones(len(rows), np.bool_)
    for name in _TOLD:
        same &= _equal(now[name], then[name])
    as_before = named.copy()
    as_before[named] = same
    stays = np.zeros(before.num_rows, np.bool_)
    stays[rows[same]] = True
    came = np.flatnonzero(~as_before)
    left = np.flatnonzero(~stays)
    if max(len(came), len(left)) > most or np.any(np.diff(rows[same]) <= 0):
        return None
    return Difference(planned.take(pa.array(came)).append_column(PLANNED.field("row"), pa.array(came)), left)


def _equal(now: pa.ChunkedArray, then: pa.ChunkedArray) -> Mask:
    both_null = pc.and_(pc.is_null(now), pc.is_null(then))
    equal: Mask = pc.or_(pc.fill_null(pc.equal(now, then), False), both_null).to_numpy()
    return equal
