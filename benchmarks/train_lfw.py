"""The experiment: what contrastive training with a decoder is worth on LFW, by people nobody was trained on.

    python -m benchmarks.train_lfw --lfw DIR --work DIR [--arms NAME ...] [--seeds N ...] [--full] [--device cuda] [--json]

DIR holds images/, pairsDevTest.txt, peopleDevTrain.txt and peopleDevTest.txt of LFW's View 1. The network learns from the
photos of the train people that are there; of these people, 15 % choose the epoch. Figures are of the test people: ten-fold
accuracy and area under the curve over the test pairs, precision@1 and mean average precision among all their photos, and how
many directions their embeddings use. Every finished arm is a line in the work folder and is not run again; one that was
interrupted goes on from its checkpoint.

Small (the default): crops of 80 px, a quarter of the published network's channels, 128 dimensions. With --full: 160 px, all
channels, 512 dimensions; meant for a GPU.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from benchmarks.lfw_faces import LfwFaces, cut_faces, read_people
from benchmarks.machine import describe_machine
from models.architectures import FaceNetwork, build_network
from models.decoder import Decoder
from models.folds import stratified_folds
from models.inception_resnet_v1 import architecture_name
from models.pairs import PeopleSplit, split_people
from models.people import PeopleCrops, embed_people
from models.retrieval import measure_retrieval
from models.roc import roc_curve
from models.snapshot import Snapshot
from models.spectrum import variance_spectrum
from models.torch_threads import torch_threads
from models.training import GPU_SETTINGS, PHOTO_SETTINGS, EpochRecord, RunOptions, TrainingSettings, train_encoder
from models.verification import cross_validate

__all__ = ["ARMS", "Arm", "Scale", "main", "run_arm", "summarise"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """A size of the experiment: crops, network and how long it learns."""

    name: str
    side_px: int
    width: float
    dimension: int
    settings: TrainingSettings


SMALL = Scale("small", 80, 0.25, 128, PHOTO_SETTINGS)
FULL = Scale("full", 160, 1.0, 512, GPU_SETTINGS)


@dataclass(frozen=True)
class Arm:
    """One way to get an encoder: no training, or training with the scale's settings and these changes.

    `longer` multiplies the scale's epochs; with `mirror` a face counts as the sum of itself and its mirror image.
    """

    trained: bool = True
    architecture: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()
    longer: int = 1
    mirror: bool = False


ARMS = {
    "untrained": Arm(trained=False),
    "contrastive": Arm(changes=(("rebuild_weight", 0.0),)),
    "contrastive+reconstruction": Arm(changes=(("rebuild_weight", 0.1),)),
    "triplet": Arm(changes=(("loss", "triplet"), ("rebuild_weight", 0.0))),
    "classification": Arm(changes=(("loss", "classification"), ("rebuild_weight", 0.0))),
    "resnet50": Arm(architecture="resnet50", changes=(("rebuild_weight", 0.1),)),
    "classification-longer": Arm(
        changes=(("loss", "classification"), ("rebuild_weight", 0.0), ("stranger_views", 2)), longer=3, mirror=True
    ),
    "strongest": Arm(changes=(("rebuild_weight", 0.1), ("stranger_views", 2)), longer=3, mirror=True),
}
_DEFAULT_ARMS = ("untrained", "contrastive", "contrastive+reconstruction")


class _Folder:
    """A training's checkpoint in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Snapshot | None:
        path = self._folder / "checkpoint.json"
        if not path.exists():
            return None
        document = json.loads(path.read_text())
        return Snapshot(safetensors.torch.load((self._folder / document["tensors"]).read_bytes()), document["state"])

    def save(self, snapshot: Snapshot) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{snapshot.document['trainer']['steps']}-{time.time_ns()}.safetensors"
        (self._folder / name).write_bytes(safetensors.torch.save(snapshot.tensors))
        partial = self._folder / "checkpoint.partial"
        partial.write_text(json.dumps({"tensors": name, "state": snapshot.document}))
        partial.replace(self._folder / "checkpoint.json")
        for other in self._folder.glob("*.safetensors"):
            if other.name != name:
                other.unlink()


def run_arm(
    arm: Arm, scale: Scale, faces: LfwFaces, *, lfw: Path, seed: int, device: str, threads: int, folder: Path
) -> Row:
    """One arm with one seed: its figures on the test people, by name.

    Args:
        arm: how the encoder comes about.
        scale: its size.
        faces: of train and test people.
        lfw: LFW's folder, for the people and the pairs.
        seed: of first weights, split and batches.
        device: "cpu" or "cuda".
        threads: torch's, on the processor.
        folder: of its checkpoint.
    """
    test = read_people(lfw / "peopleDevTest.txt")
    learnt = read_people(lfw / "peopleDevTrain.txt") & set(faces.labels)
    network = build_network(arm.architecture or architecture_name(scale.width), scale.dimension)
    network.initialise(seed)
    started = time.monotonic()
    row: Row = {"epochs": 0}
    if arm.trained:
        epochs = scale.settings.epochs * arm.longer
        settings = replace(scale.settings, seed=seed, threads=threads, epochs=epochs, **dict(arm.changes))
        row = _train(network, faces, learnt=learnt, test=test, settings=settings, device=device, folder=folder)
    return (
        row
        | {"seconds": round(time.monotonic() - started)}
        | _figures(network, faces, lfw=lfw, test=test, mirror=arm.mirror, device=device)
    )


def _train(
    network: FaceNetwork,
    faces: LfwFaces,
    *,
    learnt: set[str],
    test: set[str],
    settings: TrainingSettings,
    device: str,
    folder: Path,
) -> Row:
    labels = [label for label in faces.labels if label in learnt]
    parts = split_people(labels, validation_share=0.15, held_out_share=0.01, seed=settings.seed)
    train = tuple(sorted((*parts.train, *parts.held_out)))
    split = PeopleSplit(train=train, validation=parts.validation, held_out=tuple(sorted(test & set(faces.labels))))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        decoder = Decoder(_dimension_of(network, faces), *faces.crops.shape[1:3])
    result = train_encoder(
        faces.crops,
        faces.labels,
        network=network,
        decoder=decoder,
        settings=settings,
        split=split,
        run=RunOptions(device=device, on_epoch=_tell, checkpoints=_Folder(folder)),
    )
    return {
        "people_learnt_from": len(train),
        "photos_learnt_from": sum(label in set(train) for label in labels),
        "epochs": len(result.epochs),
        "best_epoch": result.best_epoch,
        "faces_per_second": result.epochs[-1].faces_per_second,
    }


def _dimension_of(network: FaceNetwork, faces: LfwFaces) -> int:
    network.eval()
    with torch.inference_mode():
        side = faces.crops.shape[1]
        return int(network(torch.zeros(1, 3, side, side)).shape[1])


def _tell(record: EpochRecord) -> None:
    print(
        f"  epoch {record.epoch}: loss {record.loss:.4f}, rebuilding {record.reconstruction_loss:.4f}, "
        f"validation precision@1 {record.validation.precision_at_1:.3f}, {record.faces_per_second:.0f} faces/s, "
        f"{record.seconds_left:.0f} s left",
        file=sys.stderr,
        flush=True,
    )


def _figures(network: FaceNetwork, faces: LfwFaces, *, lfw: Path, test: set[str], mirror: bool, device: str) -> Row:
    """What the encoder does on the test people."""
    rows = faces.of(test)
    asked = PeopleCrops(faces.crops[rows], np.zeros(len(rows), np.int64))
    emb_ND = embed_people(network.to(device), asked, device=device)
    if mirror:
        mirrored = PeopleCrops(np.ascontiguousarray(asked.crops[:, :, ::-1]), asked.labels)
        emb_ND = emb_ND + embed_people(network, mirrored, device=device)
        emb_ND /= np.linalg.norm(emb_ND, axis=1, keepdims=True)
    labels = [faces.labels[row] for row in rows]
    at = {faces.photos[row]: place for place, row in enumerate(rows)}
    scores, same, lost = _scores(lfw / "pairsDevTest.txt", emb_ND, at)
    tested = cross_validate(scores, same, stratified_folds(same, seed=0))
    retrieval = measure_retrieval(emb_ND, labels)
    spectrum = variance_spectrum(emb_ND)
    return {
        "pairs": len(scores),
        "pairs_without_a_face": lost,
        "accuracy": round(tested.mean, 4),
        "accuracy_folds_std": round(tested.std, 4),
        "auc": round(roc_curve(scores, same).auc, 4),
        "queries": retrieval.queries,
        "precision_at_1": round(retrieval.precision_at[1], 4),
        "mean_average_precision": round(retrieval.mean_average_precision, 4),
        "effective_rank": round(spectrum.effective_rank, 1),
        "largest_direction": round(float(spectrum.shares[0]), 4),
        "variance": round(spectrum.variance, 4),
        "spectrum": [round(float(share), 6) for share in spectrum.shares],
    }


def _scores(pairs: Path, emb_ND: Any, at: dict[str, int]) -> tuple[Any, Any, int]:
    """Cosines of LFW's pairs; a pair without two faces counts as two people, cosine -1."""
    scores, same, lost = [], [], 0
    for line in pairs.read_text().splitlines()[1:]:
        parts = line.split("\t")
        one, other = (parts[0], parts[1]), (parts[0] if len(parts) == 3 else parts[2], parts[-1])
        places = [at.get(f"{person}/{person}_{int(number):04d}.jpg") for person, number in (one, other)]
        lost += None in places
        a, b = places
        scores.append(-1.0 if a is None or b is None else float(emb_ND[a] @ emb_ND[b]))
        same.append(len(parts) == 3)
    return np.array(scores), np.array(same), lost


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean and spread over seeds of each arm."""
    table = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        of_arm = [row for row in rows if row["arm"] == arm]
        line: Row = {"arm": arm, "seeds": len(of_arm)}
        for name in ("accuracy", "auc", "precision_at_1", "mean_average_precision", "effective_rank", "seconds"):
            values = [row[name] for row in of_arm]
            line[name] = round(float(np.mean(values)), 4)
            line[f"{name}_range"] = [min(values), max(values)]
        table.append(line)
    return table


def main() -> int:
    """Run what is missing, print the table; the last line is one JSON object with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where crops, checkpoints and results are kept")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(_DEFAULT_ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--full", action="store_true", help="160 px and the whole network")
    parser.add_argument("--epochs", type=int, help="in place of the scale's own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print(f"no GPU is at hand here: --device {args.device} needs one", file=sys.stderr)
        return 1
    scale = FULL if args.full else SMALL
    if args.device == "cpu":
        scale = replace(scale, settings=replace(scale.settings, precision="float32"))
    if args.epochs is not None:
        scale = replace(scale, settings=replace(scale.settings, epochs=args.epochs))
    args.work.mkdir(parents=True, exist_ok=True)
    people = read_people(args.lfw / "peopleDevTrain.txt") | read_people(args.lfw / "peopleDevTest.txt")
    with torch_threads(args.threads):
        faces = cut_faces(args.lfw, people, side_px=scale.side_px, work=args.work, device=args.device)
    print(
        f"{len(faces.labels)} faces of {len(set(faces.labels))} people; {faces.no_face} photos without", file=sys.stderr
    )
    results = _Results(args.work / "results.jsonl", json.dumps(asdict(scale), sort_keys=True))
    for seed in args.seeds:
        for name in args.arms:
            if not results.has(name, seed):
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
                folder = args.work / f"{scale.name}-{name}-{seed}-{scale.settings.epochs}"
                row = run_arm(
                    ARMS[name],
                    scale,
                    faces,
                    lfw=args.lfw,
                    seed=seed,
                    device=args.device,
                    threads=args.threads,
                    folder=folder,
                )
                results.add({"arm": name, "seed": seed} | row)
    rows = [results.get(name, seed) for seed in args.seeds for name in args.arms]
    table = summarise(rows)
    for line in table:
        print("  ".join(f"{key} {value}" for key, value in line.items()))
    if args.json:
        result = {"scale": asdict(scale), "table": table, "rows": rows, "machine": describe_machine()}
        print(json.dumps(result))
    return 0


class _Results:
    """Finished arms, a JSON line each; only those of the same scale count."""

    def __init__(self, path: Path, scale: str) -> None:
        self._path, self._scale = path, scale
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows: list[Row] = [row for row in map(json.loads, lines) if row["scale"] == scale]

    def has(self, arm: str, seed: int) -> bool:
        return any((row["arm"], row["seed"]) == (arm, seed) for row in self._rows)

    def get(self, arm: str, seed: int) -> Row:
        row = next(row for row in self._rows if (row["arm"], row["seed"]) == (arm, seed))
        return {name: value for name, value in row.items() if name != "scale"}

    def add(self, row: Row) -> None:
        self._rows.append(row | {"scale": self._scale})
        with self._path.open("a") as file:
            file.write(json.dumps(self._rows[-1]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
