"""From a photo's pixels to the rows of its faces."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from models.crop import cut_crop, encode_crop
from models.detection import PhotoFaces
from models.mtcnn.nets import CascadeNets, load_cascade_nets
from models.quality import measure_quality
from store.fingerprints import face_ids
from tasks.steps.contract import Contract

__all__ = ["load_nets", "rows_of_faces"]

Row = dict[str, Any]


@lru_cache(maxsize=1)
def load_nets(device: str) -> CascadeNets:
    """The detector's nets, loaded once a process."""
    return load_cascade_nets(device)


def rows_of_faces(
    photo_row: Row, photo_HWC: npt.NDArray[np.uint8], found: PhotoFaces, *, contract: Contract
) -> list[Row]:
    """FACES rows of one photo's faces, in their order.

    Args:
        photo_row: gives photo_sha256 and uri.
        photo_HWC: uint8, (H, W, 3), RGB, the photo at full size.
        found: its faces.
        contract: how crops are cut and stored.
    """
    sha256 = str(photo_row["photo_sha256"])
    ids = face_ids(sha256, [face.box.tolist() for face in found.faces])
    rows = []
    for identity, face in zip(ids, found.faces, strict=True):
        crop = cut_crop(photo_HWC, face.box, settings=contract.crop)
        quality = measure_quality(photo_HWC, face.box, face.landmarks, score=face.score)
        rows.append(
            {
                "face_id": identity,
                "photo_sha256": sha256,
                "uri": photo_row["uri"],
                "box": face.box.tolist(),
                "landmarks": face.landmarks.reshape(-1).tolist(),
                "score": face.score,
                "rotation": found.rotation,
                **quality.as_row(),
                "crop": encode_crop(crop, settings=contract.crop),
                "crop_origin": crop.origin.tolist(),
                "crop_scale": crop.scale,
            }
        )
    return rows
