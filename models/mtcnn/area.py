"""Area resizing by summed-area tables: any level of the pyramid and any candidate's crop out of one table a photo.

A pixel of a level or crop is the mean of the area it covers, rounded outwards to whole pixels: what adaptive average
pooling gives. Sums are unsigned 32-bit integers that may wrap around: their differences are exact as long as one area
holds fewer than 16 million pixels.

Shapes: 4 channels: red, green, blue and one of zeros, so that a pixel is one 16-byte element to numpy's gathers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["AreaTables", "Span", "area_tables", "cut_crops", "cut_tile", "span"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_CHANNELS = 4
_MEAN = np.float32(127.5)
_SCALE = np.float32(0.0078125)


@dataclass(frozen=True, eq=False)
class AreaTables:
    """The summed-area tables of a batch of photos, one after another.

    Args:
        sums: complex128 that are four uint32 each, (sum of (H + 1) * (W + 1),).
        starts: int64, (P,), where each photo's table starts.
        strides: int64, (P,), W + 1 of each photo.
    """

    sums: npt.NDArray[np.complex128]
    starts: IntArray
    strides: IntArray


@dataclass(frozen=True, eq=False)
class Span:
    """Where the pixels of one side of a level begin and end in the photo.

    Args:
        first: int64, (n,).
        end: int64, (n,).
    """

    first: IntArray
    end: IntArray

    def part(self, start: int, pixels: int) -> "Span":
        """So many pixels from one on."""
        return Span(first=self.first[start : start + pixels], end=self.end[start : start + pixels])


def area_tables(photos: Sequence[npt.NDArray[np.uint8]]) -> AreaTables:
    """The tables of photos, uint8 (H, W, 3) each.

    References:
        Crow. Summed-area tables for texture mapping. SIGGRAPH 1984.
    """
    sizes_P2 = np.array([photo.shape[:2] for photo in photos], dtype=np.int64) + 1
    ends_P = np.cumsum(sizes_P2.prod(axis=1))
    starts_P = ends_P - sizes_P2.prod(axis=1)
    sums = np.zeros((int(ends_P[-1]), _CHANNELS), dtype=np.uint32)
    for photo_HWC, start, end, (rows, columns) in zip(photos, starts_P, ends_P, sizes_P2, strict=True):
        table_HWC = sums[start:end].reshape(rows, columns, _CHANNELS)
        table_HWC[1:, 1:, :3] = photo_HWC
        np.cumsum(table_HWC, axis=0, out=table_HWC)
        np.cumsum(table_HWC, axis=1, out=table_HWC)
    return AreaTables(sums=_as_elements(sums), starts=starts_P, strides=sizes_P2[:, 1])


@lru_cache(maxsize=4096)
def span(photo_px: int, level_px: int) -> Span:
    """Where the `level_px` pixels of a level lie on a side of `photo_px` pixels."""
    pixel = np.arange(level_px, dtype=np.int64)
    return Span(first=pixel * photo_px // level_px, end=-(-(pixel + 1) * photo_px // level_px))


def cut_tile(tables: AreaTables, photo: int, *, rows: Span, columns: Span) -> FloatArray:
    """A part of one level of one photo, normalised, float32 (rows, columns, 4)."""
    start, stride = int(tables.starts[photo]), int(tables.strides[photo])
    left, right = int(columns.first[0]), int(columns.end[-1])
    top, bottom = int(rows.first[0]), int(rows.end[-1])
    part_HW = tables.sums[start + top * stride : start + (bottom + 1) * stride].reshape(-1, stride)[:, left : right + 1]
    down_HW = _as_elements(
        _as_sums(part_HW.take(rows.end - top, axis=0)) - _as_sums(part_HW.take(rows.first - top, axis=0))
    )
    sums_HWC = _as_sums(down_HW.take(columns.end - left, axis=1)) - _as_sums(down_HW.take(columns.first - left, axis=1))
    return _normalised_means(sums_HWC, rows.end - rows.first, columns.end - columns.first)


def cut_crops(tables: AreaTables, photos_N: IntArray, windows_N4: IntArray, *, side_px: int) -> FloatArray:
    """Each window of its photo as a square crop, normalised, float32 (N, side_px, side_px, 4).

    Args:
        tables: of the photos.
        photos_N: int64, (N,), which photo each window lies in.
        windows_N4: int64, (N, 4), first column, first row, end column, end row; none empty, all inside the photo.
        side_px: side of the crops.
    """
    pixel = np.arange(side_px, dtype=np.int64)
    size_N2 = windows_N4[:, 2:] - windows_N4[:, :2]
    first_N2S = windows_N4[:, :2, None] + pixel * size_N2[:, :, None] // side_px
    end_N2S = windows_N4[:, :2, None] - (-(pixel + 1) * size_N2[:, :, None] // side_px)
    (left_NS, top_NS), (right_NS, bottom_NS) = first_N2S.transpose(1, 0, 2), end_N2S.transpose(1, 0, 2)
    start_N11, stride_N1 = tables.starts[photos_N][:, None, None], tables.strides[photos_N][:, None]
    top_NS1 = (top_NS * stride_N1)[:, :, None] + start_N11
    bottom_NS1 = (bottom_NS * stride_N1)[:, :, None] + start_N11
    left_N1S, right_N1S = left_NS[:, None, :], right_NS[:, None, :]
    sums_NSSC = _as_sums(tables.sums.take(bottom_NS1 + right_N1S))
    sums_NSSC = sums_NSSC - _as_sums(tables.sums.take(top_NS1 + right_N1S))
    sums_NSSC -= _as_sums(tables.sums.take(bottom_NS1 + left_N1S))
    sums_NSSC += _as_sums(tables.sums.take(top_NS1 + left_N1S))
    return _normalised_means(sums_NSSC, bottom_NS - top_NS, right_NS - left_NS)


def _normalised_means(sums: npt.NDArray[np.uint32], heights: IntArray, widths: IntArray) -> FloatArray:
    """(mean - 127.5) / 128, as the nets want their pixels; the channel of zeros meets weights of zero.

    Args:
        sums: uint32, (..., rows, columns, 4).
        heights: int64, (..., rows), of the areas, pixels.
        widths: int64, (..., columns).
    """
    flat = sums.astype(np.float32).reshape(*heights.shape, -1)  # one long row is multiplied faster than many pixels
    flat *= np.repeat(_SCALE / widths.astype(np.float32), _CHANNELS, axis=-1)[..., None, :]
    flat /= heights.astype(np.float32)[..., None]
    flat -= _MEAN * _SCALE
    means: FloatArray = flat.reshape(sums.shape)
    return means


def _as_elements(sums: npt.NDArray[np.uint32]) -> npt.NDArray[np.complex128]:
    return sums.view(np.complex128)[..., 0]


def _as_sums(elements: npt.NDArray[np.complex128]) -> npt.NDArray[np.uint32]:
    return elements.view(np.uint32).reshape(*elements.shape, _CHANNELS)
