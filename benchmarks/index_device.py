"""The heavy parts of a new index on a GPU and on the processor: exact neighbours of held-out queries, and training of lists.

    python -m benchmarks.index_device [--device cuda] [--faces 262144] [--lists 2048] [--rounds 3] [--json]

Both sides run in this process in turn, on the same vectors, drawn as benchmarks/face_vectors.py describes and held in memory (2 KB each).
Of exact neighbours it is said whether every id and every cosine is the same; of training, which share of the ten nearest lies in the lists
that a query looks into. The processor's training is FAISS's, or torch's where FAISS is not installed; nothing else of lookalike's
libraries is needed, but numpy and torch. `--device cpu` lets torch do on the processor what it does on a GPU.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.face_vectors import FaceVectors
from benchmarks.machine import describe_machine
from models.device_search import screen_on
from models.exact_search import NearestFaces
from models.near_pairs import Screen, near_pairs
from models.spherical_kmeans import centres_of

__all__ = ["main", "measure"]

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

_QUERIES = 256
_DEPTH = 192
_BLOCK = 32_768
_SAMPLE_A_LIST = 40
_PROBED = (8, 32, 128)


def measure(*, faces: int, lists: int, dimension: int, device: str, rounds: int) -> Row:
    """Both parts, on both sides.

    Args:
        faces: drawn, at least 40 a list.
        lists: that are trained.
        dimension: of a vector.
        device: "cuda", or "cpu:0" for torch on the processor.
        rounds: how often each is measured; medians are told.
    """
    drawn = FaceVectors(faces, dimension)
    vectors_ND, queries_QD = np.concatenate([block for _, block in drawn.stream()]), drawn.queries(_QUERIES)
    near, truth = _truth(vectors_ND, queries_QD, device=device, rounds=rounds)
    training = _training(vectors_ND, near, lists=lists, device=device, rounds=rounds)
    return {"faces": faces, "dimension": dimension, "device": device, "truth": truth, "training": training}


def _truth(vectors_ND: Floats, queries_QD: Floats, *, device: str, rounds: int) -> tuple[NearestFaces, Row]:
    """The nearest of all, and how long each side took to find them."""

    def search(screen: Screen) -> NearestFaces:
        near = NearestFaces.of(queries_QD, depth=_DEPTH)
        for start in range(0, len(vectors_ND), _BLOCK):
            ids_B = np.arange(start, min(start + _BLOCK, len(vectors_ND)))
            near = near.added(ids_B, vectors_ND[start : start + _BLOCK], screen=screen)
        return near

    screens = {"processor": near_pairs, "device": screen_on(device)}
    found, row = _in_turn({side: partial(search, screen) for side, screen in screens.items()}, rounds)
    one, other = found["processor"], found["device"]
    same = all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ("ids", "cosines", "hidden"))
    return one, {"queries": len(queries_QD), "kept": _DEPTH, **row, "same_to_the_last_bit": same}


def _training(vectors_ND: Floats, near: NearestFaces, *, lists: int, device: str, rounds: int) -> Row:
    rows_S = np.random.default_rng(0).permutation(len(vectors_ND))[: _SAMPLE_A_LIST * lists]
    sample_SD = vectors_ND[np.sort(rows_S)]
    trains = _faiss_centres(sample_SD.shape[1], lists)
    sides: dict[str, Callable[[], Floats]] = {
        "processor": lambda: trains(sample_SD) if trains else centres_of(sample_SD, lists, device="cpu"),
        "device": lambda: centres_of(sample_SD, lists, device=device),
    }
    found, row = _in_turn(sides, rounds)
    again = sides["device"]().tobytes() == found["device"].tobytes()
    recalls = {f"{side}_recall_at_10": _recalls(vectors_ND, near, centres) for side, centres in found.items()}
    how = {"lists": lists, "sample": len(sample_SD), "processor_by": "faiss" if trains else "torch"}
    return {**how, **row, **recalls, "same_bytes_twice_on_device": again}


def _faiss_centres(dimension: int, lists: int) -> Callable[[Floats], Floats] | None:
    """What a build trains with on the processor; None where FAISS is not installed."""
    try:
        from store.index_choice import KINDS  # noqa: PLC0415
        from store.index_train import train_index  # noqa: PLC0415
    except ModuleNotFoundError:
        return None

    def train(sample_SD: Floats) -> Floats:
        index = train_index(KINDS["lists"](len(sample_SD), dimension, lists), sample_SD)
        centres: Floats = index.quantizer.reconstruct_n(0, lists)
        return centres

    return train


def _recalls(vectors_ND: Floats, near: NearestFaces, centres_LD: Floats) -> dict[str, float]:
    """By how many lists a query looks into: the share of its ten nearest that lies in them."""
    ten_QK = near.ids[:, :10]
    lists_QK = (vectors_ND[ten_QK.ravel()] @ centres_LD.T).argmax(axis=1).reshape(ten_QK.shape)
    by_nearness_QL = np.argsort(-(near.queries @ centres_LD.T), axis=1)
    return {
        str(probed): round(float((lists_QK[:, :, None] == by_nearness_QL[:, None, :probed]).any(axis=2).mean()), 4)
        for probed in _PROBED
        if probed < len(centres_LD)
    }


def _in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, Any], Row]:
    """What each side finds, and the seconds it takes: the median and all of them, after a first time for warmth."""
    found = {side: call() for side, call in sides.items()}
    took: dict[str, list[float]] = {side: [] for side in sides}
    for side, call in _turns(sides, rounds):
        start = time.perf_counter()
        call()
        took[side].append(time.perf_counter() - start)
    medians = {side: statistics.median(each) for side, each in took.items()}
    row: Row = {f"{side}_s": round(seconds, 3) for side, seconds in medians.items()}
    row |= {f"{side}_s_each": [round(one, 3) for one in each] for side, each in took.items()}
    return found, row | {"ratio": round(medians["processor"] / medians["device"], 2)}


def _turns(sides: dict[str, Callable[[], Any]], rounds: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    for _ in range(rounds):
        yield from sides.items()


def main() -> int:
    """Print the figures; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help='"cuda", "cuda:1" or "cpu" (default: cuda)')
    parser.add_argument("--faces", type=int, default=262_144)
    parser.add_argument("--lists", type=int, default=2_048)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.faces < args.lists * _SAMPLE_A_LIST:
        parser.error(f"{args.lists:,} lists want {args.lists * _SAMPLE_A_LIST:,} faces, got {args.faces:,}")
    device = "cpu:0" if args.device == "cpu" else args.device
    if device != "cpu:0" and not torch.cuda.is_available():
        print(f"no GPU is at hand here: --device {args.device} needs one", file=sys.stderr)
        return 1
    result = measure(
        faces=args.faces, lists=args.lists, dimension=args.dimension, device=device, rounds=args.rounds
    ) | {"machine": describe_machine()}
    print("\n".join(f"{name:<10} {json.dumps(value)}" for name, value in result.items()))
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
