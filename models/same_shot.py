"""Whether two faces are from one and the same photograph, at another size, cut or encoding; no encoder is asked.

S numbers of a signature.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.alignment import warp_to_template

__all__ = ["SAME_SHOT", "shot_signature"]

SAME_SHOT = 0.96
"""Least product of two signatures of one photograph. Copies at other sizes and qualities, cut, brightened or grey, seldom fall
below it; photos taken at different moments hardly ever reach it, even of one person."""

_TEMPLATE_PX, _SIGNATURE_PX = 112, 14


def shot_signature(crop_HWC: npt.NDArray[np.uint8], landmarks_52: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """A face's brightness on a coarse grid over its five landmarks, without mean and of unit length, float32 (S,).

    The grid follows the landmarks, so that it does not matter how the photo was cut or where the detector drew its box.

    Args:
        crop_HWC: uint8, (H, W, 3), RGB.
        landmarks_52: (5, 2), in pixels of the crop.

    Raises:
        ValueError: the landmarks cannot be aligned.
    """
    face_HWC = warp_to_template(crop_HWC, landmarks_52, height=_TEMPLATE_PX, width=_TEMPLATE_PX)
    grey = Image.fromarray(face_HWC).convert("L").resize((_SIGNATURE_PX, _SIGNATURE_PX), Image.Resampling.BOX)
    values_S = np.asarray(grey, np.float32).reshape(-1)
    values_S = values_S - values_S.mean()
    length = float(np.linalg.norm(values_S))
    signature_S: npt.NDArray[np.float32] = values_S / length if length > 0 else values_S
    return signature_S
