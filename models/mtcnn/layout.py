"""All that PNet must see of photos of given sizes: every level of their pyramids, in tiles, on sheets.

Archives repeat sizes, so what was laid out for the last batches is remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from models.mtcnn.area import Span
from models.mtcnn.pyramid import Level, pyramid_levels
from models.mtcnn.sheets import Sheet, cut_into_tiles, lay_out

__all__ = ["Layout", "Places", "lay_out_pyramids", "layout_of"]

IntArray = npt.NDArray[np.int64]
Column = TypeVar("Column")


class Places(NamedTuple, Generic[Column]):
    """Where every tile lies and what it shows, sheet by sheet: int64 (K,) each, arrays or tensors.

    Attributes:
        sheet: number of its sheet.
        row: pixel of the sheet at which its first row lies.
        column: likewise.
        rows: its height, pixels.
        columns: its width.
        cell_rows: rows of PNet's output.
        cell_columns: columns of it.
        photo: number of the photo in its batch.
        level: number of the level in the photo's pyramid.
        first_row: PNet's first row of cells in the tile, counted in the level.
        first_column: likewise.
        level_rows: height of the whole level, pixels.
        level_columns: width of the whole level.
    """

    sheet: Column
    row: Column
    column: Column
    rows: Column
    columns: Column
    cell_rows: Column
    cell_columns: Column
    photo: Column
    level: Column
    first_row: Column
    first_column: Column
    level_rows: Column
    level_columns: Column


@dataclass(frozen=True, eq=False)
class Layout:
    """Levels laid on sheets; not to be changed, since batches share it.

    Args:
        sheets: with their tiles.
        places: of the tiles, in the sheets' order.
        levels: which level each place shows a part of, (K,).
        scales: float32, (K,), level pixels per photo pixel.
    """

    sheets: tuple[Sheet, ...]
    places: Places[IntArray]
    levels: tuple[Level, ...]
    scales: npt.NDArray[np.float32]

    def spans(self, place: int) -> tuple[Span, Span]:
        """Rows and columns of the photo that the pixels of a place cover."""
        level, places = self.levels[place], self.places
        rows = level.rows.part(2 * int(places.first_row[place]), int(places.rows[place]))
        return rows, level.columns.part(2 * int(places.first_column[place]), int(places.columns[place]))


@lru_cache(maxsize=16)
def lay_out_pyramids(sizes: tuple[tuple[int, int], ...], *, min_face_px: float, pyramid_factor: float) -> Layout:
    """Every level of photos of these heights and widths, on as few sheets as `lay_out` needs.

    Args:
        sizes: height and width of each photo, pixels.
        min_face_px: of the smallest face that can be found.
        pyramid_factor: size of a level relative to the one before.
    """
    sizes_P2 = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    levels = pyramid_levels(sizes_P2, min_face_px=min_face_px, pyramid_factor=pyramid_factor)
    tiles = [
        tile
        for (photo, number), level in levels.items()
        for tile in cut_into_tiles(photo, number, height=level.height, width=level.width)
    ]
    return layout_of(tuple(lay_out(tiles)), levels)


def layout_of(sheets: Sequence[Sheet], levels: dict[tuple[int, int], Level]) -> Layout:
    """Sheets with the levels, by photo and number, that their tiles are parts of."""
    placed = [(number, *place) for number, sheet in enumerate(sheets) for place in sheet.places]
    shown = tuple(levels[tile.photo, tile.level] for _, tile, _, _ in placed)
    columns = [
        (
            *(number, row, column, tile.rows, tile.columns, *tile.cells),
            *(tile.photo, tile.level, tile.first_row, tile.first_column, level.height, level.width),
        )
        for (number, tile, row, column), level in zip(placed, shown, strict=True)
    ]
    table_CK = np.array(columns, dtype=np.int64).reshape(-1, len(Places._fields)).T
    scales_K = np.array([level.scale for level in shown], dtype=np.float32)
    return Layout(tuple(sheets), Places(*np.ascontiguousarray(table_CK)), shown, scales_K)
