"""What is left of tables when those who were forgotten are taken out."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from store.forgotten import Forgotten

__all__ = ["NO_FACE_KEPT", "without_forgotten"]

Row = dict[str, Any]

NO_FACE_KEPT = "no face of it is kept"
"""The reason of a photo all of whose faces were forgotten."""


def without_forgotten(photos: Sequence[Row], faces: Sequence[Row], forgotten: Forgotten) -> tuple[list[Row], list[Row]]:
    """The rows that may stay: no forgotten photo, no face of one, no forgotten face; what photos say of their faces is set right.

    Args:
        photos: rows of PHOTOS or VERSION_PHOTOS.
        faces: rows of FACES or VERSION_FACES, of these photos.
        forgotten: the tags.

    Returns:
        The photos and the faces, in their order. A photo that lost all its faces is `no_face`.
    """
    if not forgotten:
        return list(photos), list(faces)
    kept_faces = [row for row in faces if not forgotten.has_face(row)]
    kept_photos = [row for row in photos if not forgotten.has_photo(row)]
    there = {row["photo_sha256"] for row in kept_photos}
    kept_faces = [row for row in kept_faces if row["photo_sha256"] in there]
    lost = Counter(row["photo_sha256"] for row in faces) - Counter(row["photo_sha256"] for row in kept_faces)
    left = Counter(row["photo_sha256"] for row in kept_faces)
    return [
        _set_right(row, left=left[row["photo_sha256"]]) if row["photo_sha256"] in lost else row for row in kept_photos
    ], (kept_faces)


def _set_right(row: Row, *, left: int) -> Row:
    if row["status"] not in {"indexed", "duplicate"} or row["num_faces"] == left:
        return row
    return row | ({"num_faces": left} if left else {"num_faces": 0, "status": "no_face", "reason": NO_FACE_KEPT})
