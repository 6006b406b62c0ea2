"""Sheets: the levels of any photos laid side by side on squares of one size, so that PNet always computes full ones.

A level larger than a sheet is cut into tiles that overlap by PNet's window. Tiles start on even pixels, since PNet's
pooling takes pairs. What a pair at a tile's odd edge has outside the tile is masked out before the pooling, as if the
picture ended there.

Shapes: S = SHEET_PX; a cell is one 12 x 12 window of PNet, two pixels from the next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.mtcnn.pyramid import PNET_WINDOW_PX

__all__ = ["SHEET_CELLS", "SHEET_PX", "Sheet", "Tile", "cut_into_tiles", "lay_out"]

SHEET_PX = 512
SHEET_CELLS = (SHEET_PX - PNET_WINDOW_PX) // 2 + 1


@dataclass(frozen=True)
class Tile:
    """A part of one level of one photo.

    Args:
        photo: number of the photo in its batch.
        level: number of the level, 0 the largest.
        first_row: PNet's first row of cells in the tile, counted in the level.
        first_column: likewise.
        rows: pixels of the tile, at most SHEET_PX.
        columns: likewise.
    """

    photo: int
    level: int
    first_row: int
    first_column: int
    rows: int
    columns: int

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of PNet's output."""
        return _cells(self.rows), _cells(self.columns)


@dataclass(frozen=True)
class Sheet:
    """Tiles and the pixels at which their left top corners lie: (tile, row, column), rows and columns even."""

    places: tuple[tuple[Tile, int, int], ...]

    def mask(self) -> npt.NDArray[np.float32]:
        """0 where the first convolution sees one tile only, minus infinity elsewhere: float32 (S - 2, S - 2)."""
        mask_HW = np.full((SHEET_PX - 2, SHEET_PX - 2), -np.inf, dtype=np.float32)
        for tile, row, column in self.places:
            mask_HW[row : row + tile.rows - 2, column : column + tile.columns - 2] = 0
        return mask_HW

    def owners(self) -> npt.NDArray[np.int32]:
        """Which place each cell belongs to, -1 for none: int32 (SHEET_CELLS, SHEET_CELLS)."""
        owner_HW = np.full((SHEET_CELLS, SHEET_CELLS), -1, dtype=np.int32)
        for number, (tile, row, column) in enumerate(self.places):
            rows, columns = tile.cells
            owner_HW[row // 2 : row // 2 + rows, column // 2 : column // 2 + columns] = number
        return owner_HW


def cut_into_tiles(photo: int, level: int, *, height: int, width: int) -> Iterator[Tile]:
    """The tiles of one level of height x width pixels."""
    for first_row, rows in _parts(height):
        for first_column, columns in _parts(width):
            yield Tile(photo, level, first_row, first_column, rows, columns)


def lay_out(tiles: Sequence[Tile]) -> Iterator[Sheet]:
    """Lay tiles on sheets, higher ones first, each into the free rectangle that it fills best.

    References:
        Jylanki. A thousand ways to pack the bin. 2010: the guillotine algorithm, best short side fit, split along the
        shorter leftover.
    """
    sheets: list[list[tuple[Tile, int, int]]] = []
    free: list[_Free] = []
    for tile in sorted(tiles, key=lambda t: (-t.rows, -t.columns)):
        height, width = _even(tile.rows), _even(tile.columns)
        number = _best(free, height, width)
        if number is None:
            sheets.append([])
            free.append((len(sheets) - 1, 0, 0, SHEET_PX, SHEET_PX))
            number = len(free) - 1
        room = free.pop(number)
        sheet, row, column, _, _ = room
        sheets[sheet].append((tile, row, column))
        free += _left_over(room, height, width)
    return (Sheet(tuple(places)) for places in sheets)


_Free = tuple[int, int, int, int, int]
"""A rectangle that no tile lies on: sheet, row, column, height, width. Bare, since thousands are looked at a batch."""


def _best(free: list[_Free], height: int, width: int) -> int | None:
    """Which rectangle leaves the shortest side over, of equal ones the first in sheet, row and column; None if none fits."""
    best, best_order = None, (SHEET_PX + 1, 0, 0, 0)
    for number, (sheet, row, column, free_height, free_width) in enumerate(free):
        below, right = free_height - height, free_width - width
        if below < 0 or right < 0:
            continue
        shorter = below if below < right else right  # a call of min takes longer than the rest
        if shorter <= best_order[0] and (order := (shorter, sheet, row, column)) < best_order:
            best, best_order = number, order
    return best


def _left_over(room: _Free, height: int, width: int) -> list[_Free]:
    """What stays free when the left top corner of a rectangle is taken: one part below, one to the right."""
    sheet, row, column, free_height, free_width = room
    below, right = free_height - height, free_width - width
    wide_below = below > right
    parts = []
    if below >= PNET_WINDOW_PX and (below_width := free_width if wide_below else width) >= PNET_WINDOW_PX:
        parts.append((sheet, row + height, column, below, below_width))
    if right >= PNET_WINDOW_PX and (right_height := height if wide_below else free_height) >= PNET_WINDOW_PX:
        parts.append((sheet, row, column + width, right_height, right))
    return parts


def _parts(side_px: int) -> Iterator[tuple[int, int]]:
    """First cell and pixels of each part of one side."""
    for first in range(0, _cells(side_px), SHEET_CELLS):
        yield first, min(side_px - 2 * first, SHEET_PX)


def _cells(side_px: int) -> int:
    """PNet's windows along one side; its pooling rounds up."""
    return (side_px - 1) // 2 - 4


def _even(side_px: int) -> int:
    return side_px + side_px % 2
