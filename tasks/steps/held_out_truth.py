"""Held-out queries and their exact nearest faces, kept with a version, so that the next one need not search them anew.

What comes and goes changes who is nearest by a comparison with those faces alone. Q queries, K nearest kept of each, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.exact_search import NearestFaces
from models.near_pairs import Screen, near_pairs
from store.schemas import from_parquet, to_parquet, truth_schema
from tasks.steps.face_blocks import FaceBlocks
from tasks.steps.held_out_queries import HELD_OUT, HeldOutQueries
from tasks.steps.index_device import screen_for
from tasks.steps.measure_index import DEPTH, KEPT, Questions

__all__ = ["TRUTH_FILE", "Changed", "HeldOut", "carried", "let_through", "read_truth", "searched", "truth_parquet"]

TRUTH_FILE = "truth.parquet"

_FILTERED = (0.1, 0.01)  # shares of the faces that filters let through
_FILTERED_DEPTH, _FILTERED_KEPT = 10, 32
_ADDED_SINCE = 0.1  # of all faces: queries made of those who were there before say too little of them
_LOST = 0.5  # of the queries, whose faces are gone
_MIX = 0x9E37_79B9_7F4A_7C15  # 2^64 / golden ratio

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """Queries of one purpose, and what they should find.

    Attributes:
        purpose: "tune" an index, or ask it at the "gate".
        faces: int64 (Q,), whose crops they were made of.
        near: the exact nearest of each among all faces, by the share of them that may be found; 1.0 is everybody.
        added_since: faces that have come since they were made.
    """

    purpose: Literal["tune", "gate"]
    faces: Ints
    near: dict[float, NearestFaces]
    added_since: int = 0

    def questions(self, share: float = 1.0) -> Questions:
        """Of all faces, or of a share of them."""
        return Questions(self.near[share])

    def only(self, chosen_Q: npt.NDArray[np.bool_]) -> "HeldOut":
        """Some of them."""
        near = {share: one.only(chosen_Q) for share, one in self.near.items()}
        return replace(self, faces=self.faces[chosen_Q], near=near)


@dataclass(frozen=True)
class Changed:
    """Who came and went: ids gone, ids that came, int64 ascending, with their vectors, float32; who moved did both."""

    gone: Ints
    came: Ints
    vectors: Floats


def let_through(ids_N: Ints, share: float) -> npt.NDArray[np.bool_]:
    """Whom a filter of this share lets through: by his id alone, so that it is the same whoever comes or goes."""
    mixed_N = (ids_N.astype(np.uint64) * np.uint64(_MIX)) >> np.uint64(11)
    chosen: npt.NDArray[np.bool_] = mixed_N < share * 2**53
    return chosen


def searched(
    purpose: Literal["tune", "gate"], asked: HeldOutQueries, faces: FaceBlocks, *, device: str = "cpu"
) -> HeldOut:
    """Compared with everybody, in one pass, on a device as `index_device` names it; the gate's with filters too."""
    screen = screen_for(device)
    shares = (1.0, *_FILTERED) if purpose == "gate" else (1.0,)
    near = {share: NearestFaces.of(asked.vectors, depth=KEPT if share == 1.0 else _FILTERED_KEPT) for share in shares}
    for rows_B, vectors_BD in faces.blocks():
        near = _with(near, faces.ids[rows_B], vectors_BD, screen)
    return HeldOut(purpose, asked.faces, near)


def carried(held: HeldOut, changed: Changed, *, faces: int) -> HeldOut | None:
    """The same queries among the next version's faces; None where they are to be made and searched anew.

    That is where half of them are of faces that are gone, where a tenth of the faces has come since they were made, or where so many
    of a query's nearest are gone that who comes next is not known.

    Args:
        held: of the version before.
        changed: since then.
        faces: how many there are now.
    """
    stay = held.only(~np.isin(held.faces, changed.gone) | np.isin(held.faces, changed.came))
    added_since = held.added_since + len(np.setdiff1d(changed.came, changed.gone))
    if len(stay.faces) < max(1, (1 - _LOST) * min(HELD_OUT, faces // 2)) or added_since > _ADDED_SINCE * faces:
        return None
    near = {share: one.removed(changed.gone) for share, one in stay.near.items()}
    near = _with(near, changed.came, changed.vectors, near_pairs)
    if any((one.sure() < _depth(share)).any() for share, one in near.items()):
        return None
    return replace(stay, near=near, added_since=added_since)


def truth_parquet(sets: Sequence[HeldOut], *, dimension: int) -> bytes:
    """As it stands in a version."""
    parts = [_table(held, share, dimension) for held in sets for share in held.near]
    return to_parquet(pa.concat_tables(parts), truth_schema(dimension))


def read_truth(data: bytes, *, dimension: int, where: str) -> dict[str, HeldOut]:
    """The sets in a version's file, by purpose.

    Raises:
        ArtifactError: it is none; the message says where.
    """
    table = from_parquet(data, truth_schema(dimension), where=where)
    sets: dict[str, HeldOut] = {}
    for purpose in ("tune", "gate"):
        its = table.filter(pc.equal(table["purpose"], purpose))
        if its.num_rows:
            by_share = {share: its.filter(pc.equal(its["share"], share)) for share in its["share"].unique().to_pylist()}
            first = next(iter(by_share.values()))
            sets[purpose] = HeldOut(
                purpose="gate" if purpose == "gate" else "tune",
                faces=first["face_id"].to_numpy(),
                near={share: _near(rows, dimension) for share, rows in by_share.items()},
                added_since=int(first["added_since"][0].as_py()),
            )
    return sets


def _depth(share: float) -> int:
    return DEPTH if share == 1.0 else _FILTERED_DEPTH


def _with(
    near: dict[float, NearestFaces], ids_B: Ints, vectors_BD: Floats, screen: Screen
) -> dict[float, NearestFaces]:
    grown = {}
    for share, one in near.items():
        through = slice(None) if share == 1.0 else let_through(ids_B, share)
        grown[share] = one.added(ids_B[through], vectors_BD[through], screen=screen)
    return grown


def _table(held: HeldOut, share: float, dimension: int) -> pa.Table:
    near, count = held.near[share], len(held.faces)
    offsets = np.arange(count + 1, dtype=np.int32) * near.ids.shape[1]
    columns = {
        "purpose": pa.array([held.purpose] * count, pa.string()),
        "share": np.full(count, share),
        "face_id": held.faces,
        "query": pa.FixedSizeListArray.from_arrays(pa.array(near.queries.reshape(-1)), dimension),
        "near": pa.ListArray.from_arrays(pa.array(offsets), pa.array(near.ids.reshape(-1))),
        "cosines": pa.ListArray.from_arrays(pa.array(offsets), pa.array(near.cosines.reshape(-1))),
        "hidden": near.hidden,
        "added_since": np.full(count, held.added_since),
    }
    return pa.table(columns).cast(truth_schema(dimension))


def _near(rows: pa.Table, dimension: int) -> NearestFaces:
    count = rows.num_rows
    flat = {name: rows[name].combine_chunks().flatten().to_numpy() for name in ("query", "near", "cosines")}
    return NearestFaces(
        queries=flat["query"].reshape(count, dimension),
        ids=flat["near"].reshape(count, -1),
        cosines=flat["cosines"].reshape(count, -1),
        hidden=rows["hidden"].to_numpy(),
    )
