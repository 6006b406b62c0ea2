"""The pyramid: the sizes at which PNet looks at a photo."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.mtcnn.area import Span, span

__all__ = ["PNET_WINDOW_PX", "Level", "pyramid_levels", "pyramid_scales"]

PNET_WINDOW_PX = 12


@dataclass(frozen=True, eq=False)
class Level:
    """One level of one photo's pyramid.

    Args:
        scale: level pixels per photo pixel.
        rows: where the level's rows lie in the photo.
        columns: where its columns lie.
    """

    scale: float
    rows: Span
    columns: Span

    @property
    def height(self) -> int:
        """Rows of the level."""
        return len(self.rows.first)

    @property
    def width(self) -> int:
        """Columns of the level."""
        return len(self.columns.first)


def pyramid_scales(height: int, width: int, *, min_face_px: float, pyramid_factor: float) -> tuple[float, ...]:
    """The scales at which PNet looks at a photo, largest first; none if the photo is smaller than the smallest face.

    At the first scale a face of min_face_px fills PNet's window; each further one is pyramid_factor smaller, as long as
    the shorter side holds a window.
    """
    scale = PNET_WINDOW_PX / min_face_px
    shorter = min(height, width) * scale
    scales = []
    while shorter >= PNET_WINDOW_PX:
        scales.append(scale)
        scale *= pyramid_factor
        shorter *= pyramid_factor
    return tuple(scales)


def pyramid_levels(
    sizes_P2: npt.NDArray[np.int64], *, min_face_px: float, pyramid_factor: float
) -> dict[tuple[int, int], Level]:
    """Every level of a batch of photos, by number of the photo and of the level.

    Args:
        sizes_P2: int64, (P, 2), height and width of each photo; a level has floor(side * scale + 1) pixels a side.
        min_face_px: of the smallest face that can be found.
        pyramid_factor: size of a level relative to the one before.
    """
    levels = {}
    for photo, (height, width) in enumerate(sizes_P2.tolist()):
        scales = pyramid_scales(height, width, min_face_px=min_face_px, pyramid_factor=pyramid_factor)
        for number, scale in enumerate(scales):
            rows, columns = (span(side, int(side * scale + 1)) for side in (height, width))
            levels[photo, number] = Level(scale=scale, rows=rows, columns=columns)
    return levels
