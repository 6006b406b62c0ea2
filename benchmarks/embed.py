"""Embed faces: lookalike against facenet-pytorch's Inception-ResNet V1 in eager torch, same weights, same faces, in one run.

    python -m benchmarks.embed [--photos DIR] [--count N] [--device cuda] [--quick] [--json]

1. Equality: the cosine of both sides' embeddings of each face, and whether each face has the same ten nearest neighbours; as
   lookalike computes by itself and, on the processor, in float32 throughout; and how many convolutions were in bfloat16.
2. Speed: both embed the same uint8 faces, preprocessing included, in turns; batches of 1, 32 and 64, one thread and two;
   CPU seconds and wall. On a GPU batches of 64 and 256; there the peer is in float32 as its users run it.
3. Loading: seconds from weights in memory to the first embedding.
4. Half precision, as lookalike computes on a GPU, here on the processor: what it does to the embeddings.

Faces are the detector's, in photos or, without --photos, in drawn people. Weights are the published ones where the cache has
them; otherwise random ones, with batch-norm statistics of those very faces, without which signals would die out on the way
and every cosine would be 1.
"""

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import nn

from benchmarks.machine import describe_machine
from models.batch_norm import recalibrate_batch_norm
from models.card import BoxMargin, EncoderCard
from models.encoder import Encoder, load_encoder, unit_rows
from models.face_input import make_face_input
from models.full_precision import full_precision
from models.inception_resnet_v1 import InceptionResnetV1
from models.mtcnn.cascade import CascadeSettings, detect_faces_in_batch
from models.mtcnn.nets import load_cascade_nets
from models.portraits import draw_person, draw_portrait
from models.preprocess import preprocess_faces
from models.published import PUBLISHED_CARDS
from models.torch_encoder import TorchNetwork, read_network

__all__ = ["main", "measure"]

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Row = dict[str, Any]
Embed = Callable[[UInt8Array], FloatArray]

_INPUT_PX = 160
_NEIGHBOURS = 10
_PUBLISHED = "inception-resnet-v1:vggface2"


def measure(photos: Path | None, *, count: int, device: str, quick: bool) -> Row:
    """The figures, by name."""
    torch.set_num_threads(2)
    faces_NHWC = _faces(photos, count, device)
    card, weights, origin = _weights(faces_NHWC)
    result: Row = {"device": device, "faces": len(faces_NHWC), "drawn": photos is None, "weights": origin}
    result |= _equality(faces_NHWC, card, weights, device=device)
    rows = []
    for threads in (1, 2) if device == "cpu" else (1,):
        peer, own = _peer(weights, device, threads), load_encoder(card, weights, device=device, threads=threads)
        for batch in (1, 32, 64) if device == "cpu" else (64, 256):
            seconds = 2.0 if quick else 20.0
            rows.append(_speed(faces_NHWC, peer, own, batch=batch, threads=threads, device=device, seconds=seconds))
    result["ratio"] = min(row["ratio_wall"] for row in rows if row["batch"] > 1 and row["threads"] == 1)
    result["speed"] = rows
    result["loading"] = _loading(faces_NHWC[:1], card, weights, device=device, rounds=1 if quick else 5)
    if device == "cpu" and not quick:
        result["half_precision"] = [_half(faces_NHWC[:128], card, weights, kind) for kind in ("float16", "bfloat16")]
    return result


# Faces and weights


def _faces(photos: Path | None, count: int, device: str) -> UInt8Array:
    """The first face of each of `count` pictures, uint8 (N, 160, 160, 3)."""
    nets = load_cascade_nets(device)
    pictures = _opened(photos, count) if photos else (_drawn(number) for number in range(count))
    faces = []
    for picture in pictures:
        for face in detect_faces_in_batch([picture], nets=nets, settings=CascadeSettings())[0][:1]:
            faces.append(
                make_face_input(
                    picture,
                    face.box,
                    face.landmarks,
                    geometry=BoxMargin(box_margin=0),
                    height=_INPUT_PX,
                    width=_INPUT_PX,
                )
            )
    if len(faces) < 2 * _NEIGHBOURS:
        raise SystemExit(f"{photos}: {len(faces)} faces in {count} pictures, wanted at least {2 * _NEIGHBOURS}")
    return np.stack(faces)


def _opened(photos: Path, count: int) -> list[UInt8Array]:
    paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    opened = []
    for path in random.Random(0).sample(paths, min(count, len(paths))):
        with Image.open(path) as image:
            opened.append(np.asarray(image.convert("RGB")))
    return opened


def _drawn(number: int) -> UInt8Array:
    picture: UInt8Array = draw_portrait(draw_person(number // 4), view_seed=number)
    return picture


def _weights(faces_NHWC: UInt8Array) -> tuple[EncoderCard, bytes, str]:
    """The card, safetensors bytes, and where they are from."""
    card = PUBLISHED_CARDS[_PUBLISHED]
    from store.weights import weights_folder  # noqa: PLC0415
    from tasks.steps.published_weights import WEIGHTS_FILES, read_published  # noqa: PLC0415

    if (weights_folder() / WEIGHTS_FILES[_PUBLISHED].name).is_file():
        return *read_published(_PUBLISHED), "published, vggface2"
    network = InceptionResnetV1()
    network.initialise(0)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0, 0.2)
    inputs_NCHW = torch.from_numpy(preprocess_faces(faces_NHWC[:256], card.input))
    recalibrate_batch_norm(network, torch.tensor_split(inputs_NCHW, -(-len(inputs_NCHW) // 64)))
    return card, save(dict(network.state_dict())), "random, seed 0, batch-norm statistics of the faces"


# The two sides


def _peer(weights: bytes, device: str, threads: int) -> Embed:
    """facenet-pytorch's network as its users run it: eager, float32, evaluation mode, no gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from facenet_pytorch import InceptionResnetV1 as Published  # noqa: PLC0415

    network = Published(pretrained=None, classify=False).eval()
    network.load_state_dict(load(weights))
    network = network.to(device)

    def embed(faces_NHWC: UInt8Array) -> FloatArray:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            pixels_NCHW = torch.from_numpy(faces_NHWC).to(device).permute(0, 3, 1, 2).float()
            embeddings: FloatArray = network((pixels_NCHW - 127.5) / 128).cpu().numpy()
        return embeddings

    return embed


# 1. Equality


def _equality(faces_NHWC: UInt8Array, card: EncoderCard, weights: bytes, *, device: str) -> Row:
    """Both sides against facenet-pytorch's network in full float32; on a GPU its users run it with shortened multiplications."""
    peer, own = _peer(weights, device, 1), load_encoder(card, weights, device=device)
    batches = np.array_split(faces_NHWC, -(-len(faces_NHWC) // 32))
    with full_precision():
        exact_ND = np.concatenate([peer(batch) for batch in batches])
    row: Row = {"equality": _agreement(exact_ND, own.embed(faces_NHWC))}
    if device == "cpu":
        from models.processor_network import processor_network  # noqa: PLC0415

        exact = load_encoder(card, weights, full_precision=True)
        row["float32"] = _agreement(exact_ND, exact.embed(faces_NHWC))
        row["bfloat16_convolutions"] = processor_network(read_network(weights, card), card.input).bfloat16_convolutions
    else:
        row["peer_as_it_runs"] = _agreement(exact_ND, np.concatenate([peer(batch) for batch in batches]))
    return row


def _agreement(theirs_ND: FloatArray, ours_ND: FloatArray) -> Row:
    """How alike embeddings of the same faces are, and how many of a face's ten nearest others are the same."""
    cosines_N = (unit_rows(theirs_ND).astype(np.float64) * unit_rows(ours_ND)).sum(axis=1)
    shared_N = [len(a & b) / _NEIGHBOURS for a, b in zip(_nearest(theirs_ND), _nearest(ours_ND), strict=True)]
    others_NN = unit_rows(theirs_ND) @ unit_rows(theirs_ND).T
    return {
        "min_cosine": round(float(cosines_N.min()), 7),
        "same_top_10": round(float(np.mean(shared_N)), 5),
        "faces_with_same_top_10": sum(share == 1 for share in shared_N),
        "median_cosine_of_two_faces": round(float(np.median(others_NN[np.triu_indices(len(others_NN), 1)])), 3),
    }


def _nearest(emb_ND: FloatArray) -> list[set[int]]:
    cosines_NN = unit_rows(emb_ND) @ unit_rows(emb_ND).T
    np.fill_diagonal(cosines_NN, -2)
    return [set(row.tolist()) for row in np.argpartition(-cosines_NN, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]]


# 2. Speed


def _speed(
    faces_NHWC: UInt8Array, peer: Embed, own: Encoder, *, batch: int, threads: int, device: str, seconds: float
) -> Row:
    """Both sides in turns on the same batches, for about so many seconds, at least three rounds."""
    repeats = -(-batch // len(faces_NHWC))
    pool = np.concatenate([faces_NHWC] * repeats)
    clock = _Clock(device)
    sides: dict[str, Embed] = {"facenet_pytorch": peer, "lookalike": own.embed}
    for embed in sides.values():
        embed(pool[:batch])
    until, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < until:
        start = (rounds * batch) % max(1, len(pool) - batch + 1)
        for name, embed in sides.items():
            clock.time(name, embed, pool[start : start + batch])
        rounds += 1
    return {"batch": batch, "threads": threads, "rounds": rounds} | clock.row(faces=batch)


class _Clock:
    """CPU and wall seconds of each call, by side."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seconds: dict[str, dict[str, list[float]]] = {"cpu": {}, "wall": {}}

    def time(self, side: str, embed: Embed, faces_NHWC: UInt8Array) -> None:
        self._finish()
        cpu, wall = time.process_time(), time.perf_counter()
        embed(faces_NHWC)
        self._finish()
        self._seconds["cpu"].setdefault(side, []).append(time.process_time() - cpu)
        self._seconds["wall"].setdefault(side, []).append(time.perf_counter() - wall)

    def _finish(self) -> None:
        if self._device != "cpu":
            torch.cuda.synchronize()

    def row(self, *, faces: int) -> Row:
        """Medians and spread in milliseconds a face, and the ratios of the medians."""
        row: Row = {}
        for kind, sides in self._seconds.items():
            for side, seconds in sides.items():
                each = sorted(second / faces * 1000 for second in seconds)
                row[f"{side}_{kind}_ms"] = round(statistics.median(each), 2)
                row[f"{side}_{kind}_ms_range"] = [round(each[0], 2), round(each[-1], 2)]
            theirs, ours = (statistics.median(sides[side]) for side in ("facenet_pytorch", "lookalike"))
            row[f"ratio_{kind}"] = round(theirs / ours, 2)
        return row


# 3. Loading


def _loading(face_1HWC: UInt8Array, card: EncoderCard, weights: bytes, *, device: str, rounds: int) -> Row:
    """Seconds from weights in memory to the first embedding."""
    seconds: dict[str, list[float]] = {"facenet_pytorch": [], "lookalike": []}
    for _ in range(rounds):
        started = time.perf_counter()
        _peer(weights, device, 1)(face_1HWC)
        seconds["facenet_pytorch"].append(time.perf_counter() - started)
        started = time.perf_counter()
        load_encoder(card, weights, device=device).embed(face_1HWC)
        seconds["lookalike"].append(time.perf_counter() - started)
    return {f"{side}_s": round(statistics.median(each), 3) for side, each in seconds.items()}


# 4. Half precision


def _half(faces_NHWC: UInt8Array, card: EncoderCard, weights: bytes, kind: str) -> Row:
    inputs_NCHW = torch.from_numpy(preprocess_faces(faces_NHWC, card.input))
    exact, half = (
        TorchNetwork(read_network(weights, card), convolutions=precision)
        for precision in (torch.float32, getattr(torch, kind))
    )
    batches = torch.tensor_split(inputs_NCHW, -(-len(inputs_NCHW) // 32))
    return {"convolutions": kind} | _agreement(
        np.concatenate([exact(batch) for batch in batches]), np.concatenate([half(batch) for batch in batches])
    )


def main() -> int:
    """Print the figures; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos with faces (default: people are drawn)")
    parser.add_argument("--count", type=int, help="pictures (default: 512, with --quick 64)")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda" (default: cpu)')
    parser.add_argument("--quick", action="store_true", help="fewer faces and rounds, no half precision")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print(f"no GPU is at hand here: --device {args.device} needs one", file=sys.stderr)
        return 1
    count = args.count or (64 if args.quick else 512)
    result = measure(args.photos, count=count, device=args.device, quick=args.quick) | {"machine": describe_machine()}
    for name, value in result.items():
        for line in value if isinstance(value, list) else [value]:
            print(f"{name:<14} {json.dumps(line) if isinstance(line, dict) else line}")
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
