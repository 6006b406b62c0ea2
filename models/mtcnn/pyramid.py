"""Area resizing: the photo's pyramid and the candidates' crops.

Shapes: 1 photo or N crops, C = 3 channels, H rows, W columns. Pixels are float32 in 0..255 until `normalise`.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["PNET_WINDOW_PX", "cut_crops", "normalise", "pyramid_scales", "resize_to_level"]

PNET_WINDOW_PX = 12


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


def resize_to_level(photo_1CHW: Tensor, scale: float) -> Tensor:
    """The photo at one scale, float32, (1, 3, floor(H * scale + 1), floor(W * scale + 1)), each pixel its area's mean."""
    height, width = photo_1CHW.shape[-2:]
    return functional.interpolate(photo_1CHW, size=(int(height * scale + 1), int(width * scale + 1)), mode="area")


def cut_crops(photo_1CHW: Tensor, windows_N4: npt.NDArray[np.int64], *, side_px: int) -> Tensor:
    """Each window of the photo as a square crop, float32, (N, 3, side_px, side_px), each pixel the mean of its area.

    Args:
        photo_1CHW: float32, (1, 3, H, W).
        windows_N4: int64, (N, 4), first column, first row, end column, end row; none empty, all inside the photo.
        side_px: side of the crops.
    """
    crops = [
        functional.interpolate(photo_1CHW[:, :, y1:y2, x1:x2], size=(side_px, side_px), mode="area")
        for x1, y1, x2, y2 in windows_N4.tolist()
    ]
    # The layout is fixed, since another one changes the nets' last digits, and by them the winner among nearly equal boxes.
    return torch.cat(crops).contiguous()


def normalise(pixels: Tensor) -> Tensor:
    """Pixels as the nets want them: (pixel - 127.5) / 128."""
    return (pixels - 127.5) * 0.0078125
