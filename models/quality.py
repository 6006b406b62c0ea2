"""How good a face's picture is: columns stored with every face, on which gates act later."""

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from models.card import BoxMargin
from models.face_input import make_face_input
from models.pose import estimate_pose

__all__ = ["FaceQuality", "measure_quality", "overall_quality"]

_SIDE_PX = 112
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class FaceQuality:
    """A face's quality columns.

    Args:
        face_px: shorter side of the box, pixels of the image it was measured in.
        sharpness: variance of the Laplacian of the grey box (0..255) resized to 112 x 112; blurred and enlarged faces
            are near 0, crisp ones in the hundreds and more.
        brightness: mean grey of the box, 0 black to 1 white.
        frontality: 1 when the nose lies midway between the eyes, 0 when it lies beside one of them or beyond (a
            profile).
        yaw: degrees, positive when the face looks to the right of the picture; None where landmarks say nothing.
        pitch: degrees, positive when it looks up; None likewise.
        roll: degrees, -180 to 180, positive when it is turned clockwise in the picture; None likewise.
        quality: 0 useless to 1 good: `overall_quality` of the others.
    """

    face_px: float
    sharpness: float
    brightness: float
    frontality: float
    yaw: float | None
    pitch: float | None
    roll: float | None
    quality: float

    def as_row(self) -> dict[str, float | None]:
        """The columns by name."""
        return asdict(self)


def measure_quality(
    image_HWC: npt.NDArray[np.uint8],
    box: npt.NDArray[np.floating],
    landmarks_52: npt.NDArray[np.floating],
    *,
    score: float = 1.0,
) -> FaceQuality:
    """The quality columns of one face, which may lie on any side.

    Only the part of the box inside the image counts; a box outside it is black.

    Args:
        image_HWC: uint8, (H, W, 3), RGB; the photo, since a stored crop may be shrunk and then says less.
        box: (4,), x1, y1, x2, y2 in pixels of the image.
        landmarks_52: (5, 2), in pixels of the image, left and right as seen when the face is upright.
        score: the detector's, in [0, 1].

    Raises:
        ValueError: the image is not uint8 (H, W, 3) or the box is not finite.

    References:
        Pech-Pacheco, Cristobal, Chamorro-Martinez, Fernandez-Valdivia. Diatom autofocusing in brightfield microscopy.
        ICPR 2000: the variance of the Laplacian. The fixed size makes faces of all sizes comparable.
    """
    face_HWC = make_face_input(
        image_HWC, box, landmarks_52, geometry=BoxMargin(box_margin=0), height=_SIDE_PX, width=_SIDE_PX
    )
    grey_HW = face_HWC.astype(np.float32) @ _LUMA
    x1, y1, x2, y2 = np.asarray(box, np.float64).tolist()
    face_px = max(min(x2 - x1, y2 - y1), 0.0)
    sharpness = float(_laplacian(grey_HW).var(dtype=np.float64))
    brightness = float(grey_HW.mean(dtype=np.float64)) / 255
    yaw, pitch, roll = (None if math.isnan(angle) else angle for angle in estimate_pose(landmarks_52)[0].tolist())
    return FaceQuality(
        face_px=face_px,
        sharpness=sharpness,
        brightness=brightness,
        frontality=_frontality(np.asarray(landmarks_52, np.float64)),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        quality=overall_quality(
            score=score, face_px=face_px, sharpness=sharpness, brightness=brightness, yaw=yaw, pitch=pitch
        ),
    )


def overall_quality(
    *, score: float, face_px: float, sharpness: float, brightness: float, yaw: float | None, pitch: float | None
) -> float:
    """One value in [0, 1]: the product of five shares, each 1 where a face is good enough in that respect.

    score: 0 at 0.7 (no face passes with less), 1 at 1. face_px: 0 at 16, 1 at 80. sharpness: 0 at 0, 1 at 100.
    brightness: 0 at 0.05 and 0.95, 1 from 0.2 to 0.8. Pose: cosine of yaw times cosine of pitch, 0 without landmarks.
    """
    if yaw is None or pitch is None:
        return 0.0
    shares = (
        (score - 0.7) / 0.3,
        (face_px - 16) / 64,
        sharpness / 100,
        (0.45 - abs(brightness - 0.5)) / 0.15,
        math.cos(math.radians(yaw)) * math.cos(math.radians(pitch)),
    )
    return math.prod(min(max(share, 0.0), 1.0) for share in shares)


def _laplacian(grey_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The sum of each inner pixel's four neighbours less four times itself, (H - 2, W - 2)."""
    rows = grey_HW[:-2, 1:-1] + grey_HW[2:, 1:-1]
    columns = grey_HW[1:-1, :-2] + grey_HW[1:-1, 2:]
    return rows + columns - 4 * grey_HW[1:-1, 1:-1]


def _frontality(landmarks_52: npt.NDArray[np.float64]) -> float:
    left_eye, right_eye, nose = landmarks_52[:3]
    between = right_eye - left_eye
    length_squared = float(between @ between)
    if not length_squared > 0:
        return 0.0
    along = float((nose - left_eye) @ between) / length_squared
    return max(0.0, 1.0 - 2.0 * abs(along - 0.5))
