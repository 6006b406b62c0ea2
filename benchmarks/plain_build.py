"""Part of `build`: what somebody writes who needs no store: facenet-pytorch and FAISS in one process, in batches.

    python -m benchmarks.plain_build LIST WEIGHTS.safetensors INDEX

LIST is a file of paths of photos, a line each, all of one size, as facenet-pytorch's batches must be. Nothing is hashed, kept,
resumed or checked; a photo that cannot be read ends it.
"""

import sys
import warnings
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

__all__ = ["build", "main"]

_BATCH = 64
_INPUT_PX = 160


def build(paths: list[str], weights: Path, index_file: Path) -> int:
    """Find, cut and embed every face, and write an exact index of them; returns how many there are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facenet_pytorch import MTCNN, InceptionResnetV1  # noqa: PLC0415

    detector = MTCNN(image_size=_INPUT_PX, margin=0, min_face_size=20, keep_all=True, device="cpu")
    network = InceptionResnetV1(pretrained=None, classify=False).eval()
    network.load_state_dict(load_file(weights))
    index = faiss.IndexFlatIP(512)
    photo_of_face: list[str] = []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(paths), _BATCH):
            chosen = paths[start : start + _BATCH]
            found = detector([Image.open(path).convert("RGB") for path in chosen])
            faces = [one for one in found if one is not None]
            if faces:
                index.add(network(torch.cat(faces)).numpy())
            photo_of_face += [path for path, one in zip(chosen, found, strict=True) if one is not None for _ in one]
    faiss.write_index(index, str(index_file))
    np.save(index_file.with_suffix(".npy"), np.array(photo_of_face))
    return int(index.ntotal)


def main() -> None:
    """Build, and print the number of faces."""
    listing, weights, index_file = map(Path, sys.argv[1:])
    print(build(listing.read_text().splitlines(), weights, index_file))


if __name__ == "__main__":
    main()
