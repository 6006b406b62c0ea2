"""Photos to a published version, against a plain script: `lookalike build` as it is typed, Prefect's start and all of its work included.

    python -m benchmarks.build --photos DIR [--count N] [--rounds 1] [--json]

The peer is `benchmarks/plain_build.py`: facenet-pytorch's MTCNN and Inception-ResNet V1 in eager torch, in batches, into an exact
FAISS index. Both sides use the same photos, the same weights (random, seed 0: speed does not depend on them) and all cores, start as
processes of their own, in turns, and are timed from start to exit. The peer keeps no crops, hashes nothing and cannot resume.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from benchmarks.machine import describe_machine
from models.architectures import build_network
from models.published import PUBLISHED_CARDS
from store.encoders import promote_encoder
from store.layout import open_store
from tasks.steps.training_network import keep_encoder

__all__ = ["main", "measure", "store_with_encoder"]

Row = dict[str, Any]
_CARD = PUBLISHED_CARDS["inception-resnet-v1:vggface2"]


def measure(photos: Path, *, count: int, rounds: int) -> Row:
    """Wall seconds of both sides, their faces, and the ratio of the medians."""
    paths = sorted(path.resolve() for path in photos.rglob("*.jpg"))
    chosen = sorted(random.Random(0).sample(paths, min(count, len(paths))))
    ours, theirs = [], []
    row: Row = {"photos": len(chosen), "rounds": rounds}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            listing = folder / "photos.txt"
            listing.write_text("".join(f"{path}\n" for path in chosen))
            weights = store_with_encoder(folder / "store")
            seconds, row["lookalike"] = _build(listing, folder / "store", folder / "home")
            ours.append(seconds)
            seconds, row["plain_script"] = _plain(listing, weights, folder / "index.faiss")
            theirs.append(seconds)
    row |= {"lookalike_s": [round(s, 1) for s in ours], "plain_script_s": [round(s, 1) for s in theirs]}
    return row | {"ratio": round(statistics.median(theirs) / statistics.median(ours), 2)}


def store_with_encoder(store: Path) -> Path:
    """Make a store that uses an Inception-ResNet V1 with random weights; returns a file of these weights."""
    storage = open_store(str(store), create=True)
    network = build_network(str(_CARD.architecture), _CARD.dimension)
    network.initialise(0)
    promote_encoder(storage, keep_encoder(storage, _CARD, network, extra={"name": "random, seed 0"}))
    file = store.with_suffix(".safetensors")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    return file


def _build(listing: Path, store: Path, home: Path) -> tuple[float, Row]:
    command = [str(Path(sys.executable).parent / "lookalike"), "build", str(listing), "--store", str(store), "--json"]
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    seconds, text = _timed(command, env | {"PREFECT_HOME": str(home)})
    told = json.loads(text.splitlines()[-1])
    stages = told["seconds"]
    return seconds, {
        "faces": told["faces"],
        "stages_s": stages,
        "outside_stages_s": round(seconds - stages["total"], 1),
    }


def _plain(listing: Path, weights: Path, index: Path) -> tuple[float, Row]:
    command = [sys.executable, "-m", "benchmarks.plain_build", str(listing), str(weights), str(index)]
    seconds, text = _timed(command, dict(os.environ))
    return seconds, {"faces": int(text.splitlines()[-1])}


def _timed(command: list[str], env: dict[str, str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, done.stdout


def main() -> None:
    """Measure, print, and with --json give one object on the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEGs, all of one size")
    parser.add_argument("--count", type=int, default=4992)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(args.photos, count=args.count, rounds=args.rounds) | {"machine": describe_machine()}
    for name, value in result.items():
        print(f"{name:<16} {json.dumps(value)}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
