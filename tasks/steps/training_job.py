"""A training as something that can be handed over: to this process, or to several that torchrun starts.

A job stands under the store's runs/training/<its hash>/: what it is made of, its checkpoint, and, from several processes, its
result. A job that was killed is found again by its hash and goes on.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save
from torch import Tensor

from models.architectures import build_network
from models.augment import AugmentSettings
from models.card import EncoderCard
from models.decoder import Decoder
from models.pairs import PeopleSplit
from models.people import PeopleMetrics
from models.training import EpochRecord, RunOptions, TrainingResult, TrainingSettings, train_encoder
from store.errors import ArtifactError
from store.fingerprints import canonical_json, sha256_hex
from store.storage import Storage
from tasks.steps.checkpoints import StoreCheckpoints

__all__ = [
    "TrainingJob",
    "job_folder",
    "read_job",
    "read_result",
    "run_job",
    "write_job",
    "write_result",
]

_IDENTITY = ("architecture", "input", "geometry", "dimension")


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """All that a training hangs on.

    Attributes:
        crops_NHWC: uint8, (N, H, W, 3), RGB, as the card's input and geometry want them.
        labels: the person of each crop.
        card: the network's, its weights aside.
        first_weights: what the network starts with.
        settings: how to train.
        split: who serves for what.
    """

    crops_NHWC: npt.NDArray[np.uint8]
    labels: list[str]
    card: EncoderCard
    first_weights: dict[str, Tensor]
    settings: TrainingSettings
    split: PeopleSplit

    @cached_property
    def tensors(self) -> bytes:
        """The crops and the first weights, as safetensors."""
        weights = {f"weights.{name}": tensor.contiguous() for name, tensor in self.first_weights.items()}
        return save({"crops": torch.from_numpy(np.ascontiguousarray(self.crops_NHWC)), **weights})

    @cached_property
    def document(self) -> bytes:
        """Everything else, as canonical JSON."""
        return canonical_json(
            {
                "format": 1,
                "tensors": sha256_hex(self.tensors),
                "card": self.card.model_dump(mode="json", include=set(_IDENTITY) | {"format", "mirror_average"}),
                "labels": self.labels,
                "settings": asdict(self.settings),
                "split": asdict(self.split),
            }
        )

    @cached_property
    def identity(self) -> str:
        """32 hex digits over all of it."""
        return sha256_hex(self.document)[:32]


def job_folder(identity: str) -> str:
    """Where a job's files stand."""
    return f"runs/training/{identity}"


def run_job(job: TrainingJob, storage: Storage, run: RunOptions) -> TrainingResult:
    """Train in this process, from the job's checkpoint where it has one; the checkpoint stays.

    Args:
        job: what to train.
        storage: holds the checkpoint.
        run: where, and who is told; its checkpoints are the job's.
    """
    card = job.card
    network = build_network(str(card.architecture), card.dimension)
    network.load_state_dict(job.first_weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        decoder = Decoder(card.dimension, card.input.height, card.input.width)
    return train_encoder(
        job.crops_NHWC,
        job.labels,
        network=network,
        decoder=decoder,
        settings=job.settings,
        split=job.split,
        spec=card.input,
        run=replace(run, checkpoints=StoreCheckpoints(storage, job_folder(job.identity))),
    )


def write_job(storage: Storage, job: TrainingJob) -> None:
    """Put a job where other processes find it, its document last."""
    storage.write(f"{job_folder(job.identity)}/job.safetensors", job.tensors)
    storage.write(f"{job_folder(job.identity)}/job.json", job.document)


def read_job(storage: Storage, identity: str) -> TrainingJob:
    """A job of the store.

    Raises:
        ArtifactError: it is missing, or its files are not what its name says.
    """
    folder = job_folder(identity)
    data = storage.read(f"{folder}/job.json")
    if sha256_hex(data)[:32] != identity:
        raise ArtifactError(f"{storage.uri_of(folder)}/job.json is not the job {identity}: it has changed; train again")
    document = json.loads(data)
    tensors = load(storage.read(f"{folder}/job.safetensors", sha256=document["tensors"]))
    settings = dict(document["settings"])
    if settings["augment"] is not None:
        settings["augment"] = AugmentSettings(**settings["augment"])
    return TrainingJob(
        crops_NHWC=tensors.pop("crops").numpy(),
        labels=document["labels"],
        card=EncoderCard.model_validate(document["card"]),
        first_weights={name.removeprefix("weights."): tensor for name, tensor in tensors.items()},
        settings=TrainingSettings(**settings),
        split=PeopleSplit(**{name: tuple(people) for name, people in document["split"].items()}),
    )


def write_result(storage: Storage, identity: str, result: TrainingResult) -> None:
    """Put a job's result beside it, its document last."""
    data = save(result.state_dict)
    told: dict[str, Any] = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "state_dict"}
    told |= {"epochs": [asdict(record) for record in result.epochs], "sha256": sha256_hex(data)}
    told |= {name: asdict(told[name]) for name in ("metrics_before", "metrics_after")}
    storage.write(f"{job_folder(identity)}/job-result.safetensors", data)
    storage.write(f"{job_folder(identity)}/job-result.json", json.dumps(told).encode())


def read_result(storage: Storage, identity: str) -> TrainingResult:
    """A job's result.

    Raises:
        ArtifactError: there is none, or its weights are not those it names.
    """
    told = json.loads(storage.read(f"{job_folder(identity)}/job-result.json"))
    weights = load(storage.read(f"{job_folder(identity)}/job-result.safetensors", sha256=told.pop("sha256")))
    told["epochs"] = tuple(EpochRecord.from_json(record) for record in told["epochs"])
    told |= {name: PeopleMetrics(**told[name]) for name in ("metrics_before", "metrics_after")}
    return TrainingResult(state_dict=weights, **told)
