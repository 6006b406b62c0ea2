"""Whether a stored crop serves every encoder: embeddings from crops against embeddings from the photos' own pixels.

    python -m benchmarks.crops --photos LFW --encoder FILE.onnx [--box-margin 0.14] [--quick] [--json]

LFW holds images/<person>/<person>_NNNN.jpg, pairsDevTrain.txt and pairsDevTest.txt. The encoder's own card is used, and the
same weights with a card that cuts the box instead. Accuracy is that of the best threshold over both pair files together, the
same for both sides: what is compared is pixels, not thresholds. Each photo's main face counts.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import describe_machine
from models.card import EncoderCard, parse_card
from models.detection import find_in_photos
from models.encoder import load_encoder
from models.face_input import make_face_input
from models.metrics import best_threshold
from models.photo import PhotoLimits, read_photo
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.main_face import main_face
from tasks.steps.photo_faces import load_nets, rows_of_faces

__all__ = ["FaceSample", "cards_of", "compare", "main", "read_pairs", "sample_faces"]

UInt8Array = npt.NDArray[np.uint8]
_BATCH = 32


class FaceSample:
    """The main face of one photo: its stored row, and the photo's pixels until they have been embedded."""

    def __init__(self, row: dict[str, Any], pixels_HWC: UInt8Array) -> None:
        self.row, self.pixels_HWC = row, pixels_HWC

    def inputs(self, card: EncoderCard) -> tuple[UInt8Array, UInt8Array]:
        """The encoder's input from the photo, and from the stored crop."""
        height, width = self.pixels_HWC.shape[:2]
        from_photo = make_face_input(
            self.pixels_HWC,
            np.asarray(self.row["box"]),
            np.asarray(self.row["landmarks"]).reshape(5, 2),
            geometry=card.geometry,
            height=card.input.height,
            width=card.input.width,
            rotation=int(self.row["rotation"]),
        )
        return from_photo, face_input_of_row(self.row, card, photo_size=(width, height))


def sample_faces(paths: Sequence[Path]) -> dict[Path, FaceSample]:
    """The main face of each photo that shows one."""
    contract, nets = Contract(), load_nets("cpu")
    samples: dict[Path, FaceSample] = {}
    for start in range(0, len(paths), _BATCH):
        some = paths[start : start + _BATCH]
        photos = [
            read_photo(path.read_bytes(), limits=PhotoLimits(), max_side_px=contract.detection.max_side_px)
            for path in some
        ]
        found = find_in_photos(photos, nets=nets, settings=contract.detection)
        for path, photo, faces in zip(some, photos, found, strict=True):
            assert photo.full is not None, f"{path} is larger than {contract.detection.max_side_px} px"
            rows = rows_of_faces({"photo_sha256": "00" * 32, "uri": str(path)}, photo.full, faces, contract=contract)
            if rows:
                samples[path] = FaceSample(
                    main_face(rows, photo_size=(photo.full_width, photo.full_height)), photo.full
                )
    return samples


def compare(
    samples: dict[Path, FaceSample], pairs: Sequence[tuple[Path, Path, bool]], *, card: EncoderCard, weights: bytes
) -> dict[str, Any]:
    """Cosines between both embeddings of each face, and both sides' accuracy over the pairs whose faces were found."""
    encoder = load_encoder(card, weights)
    inputs = [sample.inputs(card) for sample in samples.values()]
    own, stored = (
        np.concatenate(
            [encoder.embed(np.stack([i[side] for i in inputs[k : k + 64]])) for k in range(0, len(inputs), 64)]
        )
        for side in (0, 1)
    )
    cosines = (own * stored).sum(axis=1)
    at = {path: n for n, path in enumerate(samples)}
    usable = [(at[a], at[b], same) for a, b, same in pairs if a in at and b in at]
    first, second, same = (np.array(column) for column in zip(*usable, strict=True))
    accuracies = [
        best_threshold((vectors[first] * vectors[second]).sum(axis=1), same).accuracy for vectors in (own, stored)
    ]
    return {
        "geometry": card.geometry.model_dump(),
        "faces": len(samples),
        "pairs": len(usable),
        "cosine_min": round(float(cosines.min()), 4),
        "cosine_1_percent": round(float(np.percentile(cosines, 1)), 4),
        "cosine_median": round(float(np.median(cosines)), 5),
        "share_under_099": round(float((cosines < 0.99).mean()), 5),
        "accuracy_from_photos": round(100 * accuracies[0], 2),
        "accuracy_from_crops": round(100 * accuracies[1], 2),
        "points_apart": round(100 * abs(accuracies[0] - accuracies[1]), 2),
    }


def read_pairs(lfw: Path) -> list[tuple[Path, Path, bool]]:
    """The pairs of both files of the development view."""
    pairs = []
    for name in ("pairsDevTrain.txt", "pairsDevTest.txt"):
        for line in (lfw / name).read_text().splitlines()[1:]:
            parts = line.split("\t")
            one, other = (parts[0], parts[1]), (parts[-2] if len(parts) == 4 else parts[0], parts[-1])
            a, b = (lfw / "images" / person / f"{person}_{int(n):04d}.jpg" for person, n in (one, other))
            pairs.append((a, b, len(parts) == 3))
    return pairs


def cards_of(encoder: Path, box_margin: float) -> tuple[list[EncoderCard], bytes]:
    """The encoder's own card and one with a box, and its weights."""
    document = json.loads(encoder.with_suffix(".json").read_text()) | {"architecture": "onnx"}
    boxed = document | {"geometry": {"box_margin": box_margin}}
    return [parse_card(d, where=str(encoder)) for d in (document, boxed)], encoder.read_bytes()


def main() -> int:
    """Print the figures; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="LFW's folder: images/ and the two pair files")
    parser.add_argument("--encoder", type=Path, required=True, help="an ONNX file with its card beside it")
    parser.add_argument("--box-margin", type=float, default=0.14, help="of the second card (default: 0.14)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pairs = read_pairs(args.photos)[:: 10 if args.quick else 1]
    samples = sample_faces(sorted({path for a, b, _ in pairs for path in (a, b)}))
    cards, weights = cards_of(args.encoder, args.box_margin)
    crop_bytes = np.array([len(sample.row["crop"]) for sample in samples.values()])
    result = {
        "rows": [compare(samples, pairs, card=card, weights=weights) for card in cards],
        "crop_bytes_mean": round(float(crop_bytes.mean())),
        "crop_bytes_95_percent": round(float(np.percentile(crop_bytes, 95))),
        "machine": describe_machine(),
    }
    for name, value in result.items():
        for line in value if isinstance(value, list) else [value]:
            print(f"{name:<22} {line}")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
