"""Which face a labelled photo is about."""

from collections.abc import Sequence
from typing import Any

__all__ = ["main_face"]


def main_face(faces: Sequence[dict[str, Any]], *, photo_size: tuple[int, int]) -> dict[str, Any]:
    """The face whose box is nearest the photo's centre, as LFW means it; of two equally near the surer one.

    Args:
        faces: rows of one photo, with box and score; at least one.
        photo_size: width and height in pixels.
    """
    width, height = photo_size

    def away(face: dict[str, Any]) -> tuple[float, float]:
        x1, y1, x2, y2 = face["box"]
        return ((x1 + x2 - width) / 2) ** 2 + ((y1 + y2 - height) / 2) ** 2, -face["score"]

    return min(faces, key=away)
