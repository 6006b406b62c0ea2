"""Find and align faces: lookalike against facenet-pytorch's batched MTCNN, same photos, same settings, in one run.

    python -m benchmarks.align --photos DIR [--count N] [--device cuda] [--quick] [--json]

1. Equality: every photo is searched by both, facenet-pytorch one at a time, lookalike in batches of mixed company; boxes
   and landmarks must lie within 0.5 px, scores within 0.001. On a GPU both without its shortened multiplications (TF32),
   which facenet-pytorch uses otherwise, as it does below.
2. Speed: both take the same decoded photos in batches of 32, in turns, one thread each, find the faces and cut a
   160 x 160 input for each; CPU seconds and wall.
3. Large photos of 4, 12 and 24 megapixels: the same pixels for both; then from the file's bytes, where lookalike searches
   a shrunk photo.
4. What bounding the search costs: faces of known sizes in a 12-megapixel photo, for several bounds.
5. Two workers of a build against two processes that know nothing of each other (not on a GPU machine).
"""

import argparse
import io
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from benchmarks.machine import describe_machine
from models.card import BoxMargin
from models.detection import DetectionSettings, find_in_photos
from models.face_input import make_face_input
from models.full_precision import full_precision
from models.mtcnn.cascade import CascadeSettings, Face, detect_faces_in_batch
from models.mtcnn.nets import CascadeNets, load_cascade_nets
from models.photo import PhotoLimits, full_pixels, read_photo

__all__ = ["main", "measure"]

UInt8Array = npt.NDArray[np.uint8]
Row = dict[str, Any]

_BATCH = 32
_INPUT_PX = 160
_LARGE = {"4": (2400, 1700), "12": (4000, 3000), "24": (6000, 4000)}
_SETTINGS = CascadeSettings()


def measure(photos: Path, *, count: int, device: str, quick: bool) -> Row:
    """The figures, by name."""
    torch.set_num_threads(1)
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg"})
    chosen = random.Random(0).sample(paths, min(count, len(paths)))
    peer, nets = _peer(device), load_cascade_nets(device)
    images = [_opened(path) for path in chosen]
    result: Row = {"photos": len(images), "device": device}
    result |= _equality(images, peer, nets)
    result |= _speed(images, peer, nets, device=device, rounds=1 if quick else 3)
    result["large"] = [
        _large(name, size, paths, peer, nets, device=device, rounds=1 if quick else 5) for name, size in _LARGE.items()
    ]
    result["bounds"] = [] if quick else _bounds(paths, nets)
    result["workers"] = _workers(paths) if device == "cpu" else None
    return result


def _peer(device: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facenet_pytorch import MTCNN  # noqa: PLC0415

    return MTCNN(keep_all=True, device=device, image_size=_INPUT_PX, post_process=False)


def _opened(path: Path) -> UInt8Array:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# 1. Equality


def _equality(images: Sequence[UInt8Array], peer: Any, nets: CascadeNets) -> Row:
    """How many photos differ, and by how much at most."""
    mixed = _mixed_sizes(images, count=max(20, len(images) // 10))
    rows: Row = {}
    for name, set_of in (("photos_as_they_are", images), ("photos_of_mixed_sizes", mixed)):
        found = [
            faces
            for start in range(0, len(set_of), _BATCH)
            for faces in detect_faces_in_batch(set_of[start : start + _BATCH], nets=nets, settings=_SETTINGS)
        ]
        with full_precision():  # as exact as on the processor
            gaps = [
                _gap(faces, peer.detect(Image.fromarray(one), landmarks=True))
                for one, faces in zip(set_of, found, strict=True)
            ]
        agreeing = [gap for gap in gaps if gap is not None]
        rows[name] = {
            "photos": len(set_of),
            "faces": sum(map(len, found)),
            "differing_photos": sum(gap is None or gap[0] > 0.5 or gap[1] > 1e-3 for gap in gaps),
            "largest_px": max((gap[0] for gap in agreeing), default=0.0),
            "largest_score": max((gap[1] for gap in agreeing), default=0.0),
        }
    return {"same_faces": all(row["differing_photos"] == 0 for row in rows.values()), "equality": rows}


def _gap(faces: Sequence[Face], wanted: Any) -> tuple[float, float] | None:
    """The largest difference in pixels and in score; None where the faces are not as many."""
    boxes, scores, landmarks = wanted
    if len(faces) != (0 if boxes is None else len(boxes)):
        return None
    if not faces:
        return 0.0, 0.0
    found = np.array([face.box for face in faces])
    twin = np.abs(found[:, None] - boxes[None].astype(np.float32)).max(axis=2).argmin(axis=1)
    if len(set(twin.tolist())) != len(faces):
        return None
    px = max(
        np.abs(found - boxes[twin]).max(), np.abs(np.array([face.landmarks for face in faces]) - landmarks[twin]).max()
    )
    return float(px), float(np.abs(np.array([face.score for face in faces]) - scores[twin]).max())


def _mixed_sizes(images: Sequence[UInt8Array], *, count: int) -> list[UInt8Array]:
    """Photos resized to odd sizes, and pictures into which several people are pasted."""
    rng = random.Random(1)
    mixed = []
    for number in range(count):
        if number % 2:
            size = (rng.randint(60, 700), rng.randint(60, 700))
            mixed.append(np.asarray(Image.fromarray(rng.choice(images)).resize(size)))
        else:
            mixed.append(_group(images, (rng.randint(400, 1100), rng.randint(300, 900)), rng, sides=(60, 400))[0])
    return mixed


def _group(
    images: Sequence[UInt8Array], size: tuple[int, int], rng: random.Random, *, sides: tuple[int, int], people: int = 7
) -> tuple[UInt8Array, list[int]]:
    """Photos of people pasted side by side into a picture of (width, height), and the sides they were pasted with."""
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    pasted, column, row, highest = [], 0, 0, 0
    for _ in range(people):
        side = round(sides[0] * (sides[1] / sides[0]) ** rng.random())
        if column + side > size[0]:
            column, row, highest = 0, row + highest, 0
        if row + side > size[1]:
            break
        picture.paste(Image.fromarray(rng.choice(images)).resize((side, side)), (column, row))
        pasted.append(side)
        column, highest = column + side, max(highest, side)
    return np.asarray(picture), pasted


# 2. Speed


@dataclass
class _Clock:
    """CPU and wall seconds of each call, by side."""

    device: str
    cpu: dict[str, list[float]]
    wall: dict[str, list[float]]

    @classmethod
    def new(cls, device: str) -> "_Clock":
        return cls(device, {}, {})

    def time(self, side: str, call: Callable[[], object]) -> None:
        self._finish()
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        self._finish()
        self.cpu.setdefault(side, []).append(time.process_time() - cpu)
        self.wall.setdefault(side, []).append(time.perf_counter() - wall)

    def _finish(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def row(self, *, a_call: int, peer: str = "facenet_pytorch", own: str = "lookalike") -> Row:
        """Medians and spread in milliseconds a photo, and the ratios of the medians."""
        row: Row = {}
        for kind, seconds in (("cpu", self.cpu), ("wall", self.wall)):
            for side in (peer, own):
                each = [second / a_call * 1000 for second in seconds[side]]
                row[f"{side}_{kind}_ms"] = round(statistics.median(each), 2)
                row[f"{side}_{kind}_ms_range"] = [round(min(each), 2), round(max(each), 2)]
            row[f"ratio_{kind}"] = round(statistics.median(seconds[peer]) / statistics.median(seconds[own]), 2)
        return row


def _speed(images: Sequence[UInt8Array], peer: Any, nets: CascadeNets, *, device: str, rounds: int) -> Row:
    same_size = [image for image in images if image.shape == images[0].shape]
    batches = [same_size[start : start + _BATCH] for start in range(0, len(same_size) - _BATCH + 1, _BATCH)]
    pictures = [[Image.fromarray(image) for image in batch] for batch in batches]
    _align_with_peer(pictures[0], peer)
    _align(batches[0], nets)
    clock = _Clock.new(device)
    for _ in range(rounds):
        for batch, opened in zip(batches, pictures, strict=True):
            clock.time("facenet_pytorch", lambda opened=opened: _align_with_peer(opened, peer))  # type: ignore[misc]
            clock.time("lookalike", lambda batch=batch: _align(batch, nets))  # type: ignore[misc]
    row = clock.row(a_call=_BATCH)
    return {"ratio_cpu": row["ratio_cpu"], "ratio_wall": row["ratio_wall"], "speed": row | {"batch": _BATCH}}


def _align_with_peer(opened: list[Image.Image], peer: Any) -> None:
    boxes, _, _ = peer.detect(opened, landmarks=True)
    peer.extract(opened, boxes, save_path=None)


def _align(batch: Sequence[UInt8Array], nets: CascadeNets) -> None:
    for photo, faces in zip(batch, detect_faces_in_batch(batch, nets=nets, settings=_SETTINGS), strict=True):
        for face in faces:
            make_face_input(
                photo, face.box, face.landmarks, geometry=BoxMargin(box_margin=0), height=_INPUT_PX, width=_INPUT_PX
            )


# 3. Large photos


def _large(
    name: str, size: tuple[int, int], paths: Sequence[Path], peer: Any, nets: CascadeNets, *, device: str, rounds: int
) -> Row:
    """One group picture of so many megapixels: the same pixels for both, and from bytes with the search bounded."""
    rng = random.Random(int(name))
    people = [_opened(path) for path in rng.sample(list(paths), 40)]
    photo, _ = _group(people, size, rng, sides=(200, 1200), people=60)
    data = _jpeg(photo)
    opened = Image.fromarray(photo)
    clock, from_bytes = _Clock.new(device), _Clock.new(device)
    gap = _gap(detect_faces_in_batch([photo], nets=nets, settings=_SETTINGS)[0], peer.detect(opened, landmarks=True))
    settings = DetectionSettings()
    found = _from_bytes(data, nets, settings)
    for _ in range(rounds):
        clock.time("facenet_pytorch", lambda: peer.detect([opened], landmarks=True))
        clock.time("lookalike", lambda: detect_faces_in_batch([photo], nets=nets, settings=_SETTINGS))
        from_bytes.time(
            "facenet_pytorch", lambda: peer.detect([Image.open(io.BytesIO(data)).convert("RGB")], landmarks=True)
        )
        from_bytes.time("lookalike", lambda: _from_bytes(data, nets, settings))
    return {
        "megapixels": name,
        "size": list(size),
        "same_faces": gap is not None and gap[0] <= 0.5 and gap[1] <= 1e-3,
        "same_pixels": clock.row(a_call=1),
        "from_bytes_bounded": from_bytes.row(a_call=1) | {"max_side_px": settings.max_side_px, "faces": found},
    }


def _from_bytes(data: bytes, nets: CascadeNets, settings: DetectionSettings) -> int:
    photo = read_photo(data, limits=PhotoLimits(), max_side_px=settings.max_side_px)
    found = find_in_photos([photo], nets=nets, settings=settings)[0]
    if found.faces:
        full_pixels(photo, data, limits=PhotoLimits())
    return len(found.faces)


def _jpeg(photo_HWC: UInt8Array) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(photo_HWC).save(sink, "JPEG", quality=92)
    return sink.getvalue()


# 4. Bounds


def _bounds(paths: Sequence[Path], nets: CascadeNets) -> list[Row]:
    """How many of the people pasted into 12-megapixel photos are found, by the face's height there, and at what cost."""
    rng = random.Random(3)
    people = [_opened(path) for path in rng.sample(list(paths), 200)]
    heights = (24, 32, 48, 64, 96)
    files: list[tuple[int, bytes, int]] = []
    for height in heights:
        side = round(height / 0.36)  # a face is about 0.36 of an LFW photo's height
        photo, pasted = _group(people, _LARGE["12"], rng, sides=(side, side), people=60)
        files.append((height, _jpeg(photo), len(pasted)))
    rows = []
    for max_side in (1024, 1536, 2048, 3072, 4096):
        settings = DetectionSettings(max_side_px=max_side)
        row: Row = {"max_side_px": max_side}
        seconds = []
        for height, data, pasted_people in files:
            started = time.process_time()
            found = _from_bytes(data, nets, settings)
            seconds.append(time.process_time() - started)
            row[f"found_at_{height}_px"] = round(min(found / pasted_people, 1), 3)
        rows.append(row | {"cpu_s_a_photo": round(statistics.median(seconds), 3)})
    return rows


# 5. Workers


def _workers(paths: Sequence[Path]) -> Row | None:
    """Two workers of a build against two processes on their own: the same shards, after a warm-up."""
    try:
        from benchmarks.align_workers import compare_workers  # noqa: PLC0415
    except ImportError:
        return None
    return compare_workers(paths)


def main() -> int:
    """Print the figures; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, required=True, help="a folder of photos with faces, such as LFW's images"
    )
    parser.add_argument("--count", type=int, help="photos (default: 1000, with --quick 128)")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda" (default: cpu)')
    parser.add_argument("--quick", action="store_true", help="fewer photos and rounds, no table of bounds")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print(f"no GPU is at hand here: --device {args.device} needs one", file=sys.stderr)
        return 1
    count = args.count or (128 if args.quick else 1000)
    result = measure(args.photos, count=count, device=args.device, quick=args.quick) | {"machine": describe_machine()}
    for name, value in result.items():
        for line in value if isinstance(value, list) else [value]:
            print(f"{name:<14} {json.dumps(line) if isinstance(line, dict) else line}")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
