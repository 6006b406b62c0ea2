"""Area resizing on a device: `area` by torch, for all sheets or all candidates of a batch in a few operations.

What is cut is the same, in whole numbers. Few operations matter more than little work: each costs a GPU's processor about as
much as a hundred thousand pixels cost the GPU.

Shapes: P photos, N sheets or crops, S their side in pixels, K places of tiles on sheets, C = 3 channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.mtcnn.layout import Places

__all__ = ["DeviceTables", "cut_crops_there", "cut_sheets_there", "paint_places", "send", "tables_on"]


@dataclass(frozen=True, eq=False)
class DeviceTables:
    """The summed-area tables of a batch of photos on a device, one after another.

    Args:
        sums: int32 that wrap around, (sum of (H + 1) * (W + 1), 3).
        photos: int64, (4, P), of each photo where its table starts, the table's stride, and the photo's height and width.
    """

    sums: Tensor
    photos: Tensor


def tables_on(device: str, photos: Sequence[npt.NDArray[np.uint8]]) -> DeviceTables:
    """The tables of photos, uint8 (H, W, 3) each: sent at once, summed size by size."""
    sizes_P2 = np.array([photo.shape[:2] for photo in photos], dtype=np.int64)
    order_P = np.lexsort((sizes_P2[:, 1], sizes_P2[:, 0]))
    pixels = _send_pixels(device, [photos[number] for number in order_P])
    lengths_P = (sizes_P2 + 1).prod(axis=1)
    starts_P = np.empty_like(lengths_P)
    starts_P[order_P] = np.cumsum(lengths_P[order_P]) - lengths_P[order_P]
    sums = torch.zeros((int(lengths_P.sum()), 3), dtype=torch.int32, device=device)
    read = written = 0
    for (height, width), count in zip(*np.unique(sizes_P2, axis=0, return_counts=True), strict=True):
        shape = int(count), int(height), int(width), 3
        part, table = int(np.prod(shape)), int(count * (height + 1) * (width + 1))
        table_PHWC = sums[written : written + table].view(shape[0], shape[1] + 1, shape[2] + 1, 3)
        rows_PHWC = pixels[read : read + part].view(shape).cumsum(1, dtype=torch.int32)
        table_PHWC[:, 1:, 1:] = rows_PHWC.cumsum_(2)
        read, written = read + part, written + table
    return DeviceTables(sums, send(device, np.stack([starts_P, sizes_P2[:, 1] + 1, *sizes_P2.T])))


def send(device: str, values: npt.NDArray[np.generic]) -> Tensor:
    """An array on the device; nobody waits for it there."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def paint_places(
    sheet: Tensor, row: Tensor, column: Tensor, rows: Tensor, columns: Tensor, *, sheets: int, side: int
) -> Tensor:
    """Which of K rectangles that do not overlap lies on each point of each sheet, -1 for none: int32 (sheets, side, side).

    A rectangle's number is added at its left top corner and right below it, and taken away at the two others; summed along
    columns and rows this fills it.

    Args:
        sheet: int64, (K,), number of its sheet.
        row: int64, (K,), its first row.
        column: int64, (K,), its first column.
        rows: int64, (K,), its height.
        columns: int64, (K,), its width.
        sheets: how many there are.
        side: rows and columns of a sheet.
    """
    across = side + 1
    first, number = (sheet * across + row) * across + column, torch.arange(1, len(row) + 1, device=row.device)
    corners = torch.cat([first, first + rows * across + columns, first + columns, first + rows * across])
    added = torch.cat([number, number, -number, -number]).int()
    painted = torch.zeros(sheets * across**2, dtype=torch.int32, device=row.device).index_add_(0, corners, added)
    filled = painted.view(sheets, across, across).cumsum(1, dtype=torch.int32).cumsum_(2)
    return filled[:, :side, :side] - 1


def cut_sheets_there(tables: DeviceTables, places: Places[Tensor], owner_NSS: Tensor) -> Tensor:
    """Whole sheets, float32 (N, S, S, 3), each tile as `area.cut_tile` gives it; where no tile lies is no picture.

    Args:
        tables: of the photos.
        places: on the device, int64 (K,) each.
        owner_NSS: int32, which of them lies on each pixel, as `paint_places` gives it.
    """
    owner = owner_NSS.clamp(min=0).long()
    pixel = torch.arange(owner.shape[1], device=owner.device)
    start, stride, height, width = tables.photos[:, places.photo]
    row = pixel[:, None] + (2 * places.first_row - places.row)[owner]
    column = pixel + (2 * places.first_column - places.column)[owner]
    top, bottom = _edges(row, height[owner], places.level_rows[owner])
    left, right = _edges(column, width[owner], places.level_columns[owner])
    areas = (bottom - top) * (right - left)
    stride, start = stride[owner], start[owner]
    return _means(tables, start + top * stride, start + bottom * stride, left, right, areas)


def cut_crops_there(tables: DeviceTables, photos_N: Tensor, windows_N4: Tensor, *, side_px: int) -> Tensor:
    """Windows as crops, float32 (N, side_px, side_px, 3), as `area.cut_crops` gives them."""
    pixel = torch.arange(side_px, device=windows_N4.device)
    first_N21, size_N21 = windows_N4[:, :2, None], (windows_N4[:, 2:] - windows_N4[:, :2])[..., None]
    first_N2S, end_N2S = (first_N21 + edge for edge in _edges(pixel, size_N21, side_px))
    start_N1, stride_N1 = tables.photos[:2, photos_N][..., None]
    top, bottom = ((start_N1 + edge[:, 1] * stride_N1)[:, :, None] for edge in (first_N2S, end_N2S))
    side_N2S = end_N2S - first_N2S
    areas = side_N2S[:, 1, :, None] * side_N2S[:, 0, None]
    return _means(tables, top, bottom, first_N2S[:, 0, None], end_N2S[:, 0, None], areas)


def _send_pixels(device: str, photos: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
    """All pixels in one row, uint8, by one transfer out of memory that the GPU reads by itself."""
    row = torch.empty(sum(photo.size for photo in photos), dtype=torch.uint8, pin_memory=not device.startswith("cpu"))
    filled = row.numpy()
    start = 0
    for photo in photos:
        filled[start : start + photo.size].reshape(photo.shape)[:] = photo
        start += photo.size
    return row.to(device, non_blocking=True)


def _edges(pixel: Tensor, photo_px: Tensor, level_px: Tensor | int) -> tuple[Tensor, Tensor]:
    """First and end of what a pixel of a level covers in the photo, as `area.span` has them."""
    return (
        (pixel * photo_px).div(level_px, rounding_mode="floor"),
        -(-(pixel + 1) * photo_px).div(level_px, rounding_mode="floor"),
    )


def _means(tables: DeviceTables, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, areas: Tensor) -> Tensor:
    """(mean - 127.5) / 128 of areas; `top` and `bottom` are where the rows start in the tables."""
    sums, last = tables.sums, len(tables.sums) - 1
    corners = (bottom + right, top + right, bottom + left, top + left)
    low_right, high_right, low_left, high_left = (sums[corner.clamp(0, last)] for corner in corners)
    total = (low_right - high_right).sub_(low_left).add_(high_left)
    return total.float() * (0.0078125 / areas.float())[..., None] - 127.5 * 0.0078125
