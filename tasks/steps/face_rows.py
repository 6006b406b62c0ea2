"""The rows of a version's faces by face id, kept as columns: some 240 bytes a face instead of the kilobytes that a dict of dicts takes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["FaceRows"]

Row = dict[str, Any]

_KEPT = 4_096  # rows that were asked for last


class FaceRows(Mapping[int, Row]):
    """Row of VERSION_FACES by face id; each is made when it is asked for. Rows are shared: they must not be changed.

    Args:
        table: VERSION_FACES.
    """

    def __init__(self, table: pa.Table) -> None:
        ids_N = table["face_id"].to_numpy()
        if np.any(ids_N[1:] < ids_N[:-1]):
            table = table.sort_by("face_id")
        self._table = table.combine_chunks()
        self._ids_N = self._table["face_id"].to_numpy()
        self._kept: dict[int, Row] = {}

    def __getitem__(self, face_id: int) -> Row:
        """The row, or KeyError."""
        kept = self._kept.get(face_id)
        if kept is not None:
            return kept
        at = int(np.searchsorted(self._ids_N, face_id)) if -(2**63) <= face_id < 2**63 else len(self._ids_N)
        if at == len(self._ids_N) or self._ids_N[at] != face_id:
            raise KeyError(face_id)
        row: Row = self._table.slice(at, 1).to_pylist()[0]
        if len(self._kept) >= _KEPT:
            self._kept = {}
        self._kept[face_id] = row
        return row

    def __iter__(self) -> Iterator[int]:
        """Face ids, rising."""
        return iter(self._ids_N.tolist())

    def __len__(self) -> int:
        """How many faces there are."""
        return len(self._ids_N)

    @property
    def table(self) -> pa.Table:
        """VERSION_FACES by rising face id."""
        return self._table

    def of_photo(self, sha256: str) -> npt.NDArray[np.int64]:
        """Ids of the faces in a photo with these bytes, int64, rising."""
        at = pc.indices_nonzero(pc.equal(self._table["photo_sha256"], sha256)).to_numpy()
        ids: npt.NDArray[np.int64] = self._ids_N[at]
        return ids

    def labels(self) -> set[str]:
        """Everybody's name."""
        return {label for label in pc.unique(self._table["label"]).to_pylist() if label}

    def labelled(self) -> Iterator[Row]:
        """Rows that have a name, some at a time."""
        named = self._table.filter(pc.is_valid(self._table["label"]))
        for start in range(0, named.num_rows, _KEPT):
            yield from named.slice(start, _KEPT).to_pylist()
