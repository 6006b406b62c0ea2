"""Train an encoder on the crops and labels of a store, and keep it there."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save

from models.card import BoxMargin, EncoderCard, encoder_id, parse_card
from models.decoder import Decoder
from models.encoder import load_encoder
from models.inception_resnet_v1 import InceptionResnetV1, architecture_name, width_of_architecture
from models.metrics import precision_at_1
from models.pairs import PeopleSplit, split_people
from models.training import PHOTO_SETTINGS, EpochRecord, TrainingSettings, train_encoder, training_input
from store.encoders import add_encoder, encoder_in_use, promote_encoder, read_encoder
from store.errors import EncoderUnknownError, LookalikeError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.schemas import PLAN, from_parquet
from store.shards import read_faces, read_photos
from store.storage import Storage
from store.versions import current_number, read_version
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import face_input_of_row
from tasks.steps.main_face import main_face
from tasks.steps.plan_build import BuildPlan
from tasks.steps.progress import report

__all__ = ["DEMO_NETWORK", "SCRATCH", "NetworkSettings", "TrainedEncoder", "new_encoder", "train_on_store"]

Row = dict[str, Any]
SCRATCH = "scratch"


@dataclass(frozen=True)
class NetworkSettings:
    """The network a training from scratch starts with.

    Attributes:
        width: share of the published network's channels, in (0, 1].
        dimension: of the embedding.
        input_px: side of the square input.
        box_margin: by how much the detector's box is made longer, in parts of its side.
        seed: of the first weights.
    """

    width: float = 0.5
    dimension: int = 128
    input_px: int = 80
    box_margin: float = 0.3
    seed: int = 0

    def card(self) -> EncoderCard:
        """The card of such a network, without its weights' hash."""
        return EncoderCard(
            format=1,
            architecture=architecture_name(self.width),
            input=training_input(self.input_px, self.input_px),
            geometry=BoxMargin(box_margin=self.box_margin),
            mirror_average=False,
            dimension=self.dimension,
        )


DEMO_NETWORK = NetworkSettings(width=0.25, dimension=128, input_px=80, box_margin=0.2)
"""A narrow network that learns drawn people in a minute or two on two cores."""


@dataclass(frozen=True)
class TrainedEncoder:
    """What a training gave.

    Attributes:
        encoder: the best epoch's encoder, in the store.
        epochs: how many ran.
        best_epoch: the one kept, from 1.
        metrics_before: of the network it started from, on held-out people.
        metrics_after: of the best epoch, on the same people.
        promoted: whether later builds use it by default.
        why: the reason, in a sentence.
        held_out: people nothing was learned from or chosen by.
    """

    encoder: str
    epochs: int
    best_epoch: int
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    promoted: bool
    why: str
    held_out: tuple[str, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """What the command prints; names of people stay out."""
        shown = {name: value for name, value in asdict(self).items() if name != "held_out"}
        return shown | {"held_out_people": len(self.held_out)}


def new_encoder(store: str, *, settings: NetworkSettings) -> str:
    """Put a network with random first weights into the store as an encoder; returns its id."""
    storage = open_store(store, create=True)
    network = InceptionResnetV1(settings.width, settings.dimension)
    network.initialise(settings.seed)
    return _keep(storage, settings.card(), network, extra={"name": f"untrained, seed {settings.seed}"})


def train_on_store(
    plan: BuildPlan,
    *,
    store: str,
    contract: Contract,
    start: str = SCRATCH,
    network: NetworkSettings | None = None,
    settings: TrainingSettings | None = None,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedEncoder:
    """Train on every labelled photo of a plan: its main face, cut from the stored crop.

    People are split into those to learn from, those to choose the best epoch by, and those held out, on whom the
    figures are taken. The new encoder is promoted when it is better on them than what it started from and than the
    encoder in use.

    Args:
        plan: its shards are committed.
        store: its uri.
        contract: of the shards.
        start: "scratch", or the id of an Inception-ResNet V1 in the store.
        network: what scratch means.
        settings: of the training.
        device: "cpu" or "cuda".
        on_epoch: is told of each epoch.

    Raises:
        LookalikeError: too few people, or an encoder that cannot be trained; the message says what is wanted.
    """
    storage = open_store(store, create=True)
    rows, labels = _labelled_rows(storage, plan, contract=contract.id)
    settings = settings or PHOTO_SETTINGS
    card, net = _start(storage, start, network or NetworkSettings())
    epochs = settings.epochs

    def tell(record: EpochRecord) -> None:
        report("train", record.epoch, epochs)
        if on_epoch is not None:
            on_epoch(record)

    try:
        split = split_people(labels, validation_share=0.15, held_out_share=0.25, seed=settings.seed)
        result = train_encoder(
            _inputs(rows, card),
            labels,
            network=net,
            decoder=_decoder(card, seed=settings.seed),
            settings=settings,
            split=split,
            device=device,
            on_epoch=tell,
        )
    except ValueError as error:
        raise LookalikeError(
            f"{plan.source} cannot be trained on: {error}; photos of a person lie in a folder of their own"
        ) from error
    before, after = asdict(result.metrics_before), asdict(result.metrics_after)
    training = {
        "source": plan.source,
        "started_from": start,
        "settings": asdict(settings),
        "epochs": len(result.epochs),
        "best_epoch": result.best_epoch,
        "stopped_by": result.stopped_by,
        "people": {"train": len(split.train), "validation": len(split.validation), "held_out": len(split.held_out)},
        "photos": len(labels),
        "last_epochs": [asdict(record) for record in result.epochs[-50:]],
    }
    extra = {
        "name": f"trained on {len(split.train)} people",
        "training": training,
        "metrics": {"before": before, "after": after},
    }
    identity = _keep(storage, card, net.cpu(), extra=extra)
    promoted, why = _promote(storage, identity, rows=rows, labels=labels, split=split, before=before, after=after)
    return TrainedEncoder(
        encoder=identity,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
        metrics_before=before,
        metrics_after=after,
        promoted=promoted,
        why=why,
        held_out=split.held_out,
    )


def _decoder(card: EncoderCard, *, seed: int) -> Decoder:
    """A decoder for the card's input, with first weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(card.dimension, card.input.height, card.input.width)


def _labelled_rows(storage: Storage, plan: BuildPlan, *, contract: str) -> tuple[list[Row], list[str]]:
    """The main face of every labelled photo, with its crop, and the labels; equal bytes count once."""
    data = storage.read(storage.path_of(plan.table.uri), sha256=plan.table.sha256)
    planned = from_parquet(data, PLAN, where=plan.table.uri).to_pylist()
    label_of = {(row["shard"], row["uri"]): row["label"] for row in planned if row["label"]}
    rows: list[Row] = []
    labels: list[str] = []
    seen: set[str] = set()
    for shard in sorted({shard for shard, _ in label_of}):
        faces: dict[str, list[Row]] = {}
        for face in read_faces(storage, contract=contract, shard=shard).to_pylist():
            faces.setdefault(face["photo_sha256"], []).append(face)
        for photo in read_photos(storage, contract=contract, shard=shard).to_pylist():
            label = label_of.get((shard, photo["uri"]))
            if label is None or photo["photo_sha256"] in seen or photo["photo_sha256"] not in faces:
                continue
            seen.add(photo["photo_sha256"])
            size = (photo["width"], photo["height"])
            rows.append(main_face(faces[photo["photo_sha256"]], photo_size=size) | {"photo_size": size})
            labels.append(label)
    return rows, labels


def _inputs(rows: list[Row], card: EncoderCard) -> npt.NDArray[np.uint8]:
    return np.stack([face_input_of_row(row, card, photo_size=row["photo_size"]) for row in rows])


def _start(storage: Storage, start: str, network: NetworkSettings) -> tuple[EncoderCard, InceptionResnetV1]:
    if start == SCRATCH:
        net = InceptionResnetV1(network.width, network.dimension)
        net.initialise(network.seed)
        return network.card(), net
    stored = read_encoder(storage, start)
    card = parse_card(stored.card, where=f"encoder {start}")
    width = width_of_architecture(card.architecture or "")
    if width is None:
        raise EncoderUnknownError(
            f"encoder {start} is {card.architecture}: training starts from scratch or an Inception-ResNet V1"
        )
    if card.input != training_input(card.input.height, card.input.width):
        raise EncoderUnknownError(f"encoder {start} wants another input than training makes: train from scratch")
    load_encoder(card, stored.weights)
    net = InceptionResnetV1(width, card.dimension)
    net.load_state_dict(load(stored.weights))
    return card, net


def _keep(storage: Storage, card: EncoderCard, network: InceptionResnetV1, *, extra: dict[str, Any]) -> str:
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    complete = card.model_copy(
        update={"name": None, "training": None, "metrics": None, **extra, "sha256": sha256_hex(weights)}
    )
    identity = encoder_id(complete)
    add_encoder(storage, identity, card=complete.model_dump(mode="json", exclude_none=True), weights=weights)
    return identity


def _promote(
    storage: Storage,
    identity: str,
    *,
    rows: list[Row],
    labels: list[str],
    split: PeopleSplit,
    before: dict[str, float],
    after: dict[str, float],
) -> tuple[bool, str]:
    name = "precision_at_1"
    if after[name] <= before[name]:
        return False, f"kept, not promoted: precision@1 {after[name]:.3f} is no better than {before[name]:.3f} before"
    in_use = encoder_in_use(storage) or _of_current_version(storage)
    if in_use is not None and in_use != identity:
        theirs = _precision_of(storage, in_use, rows=rows, labels=labels, people=set(split.held_out))
        if after[name] <= theirs:
            return False, f"kept, not promoted: precision@1 {after[name]:.3f}, the encoder in use has {theirs:.3f}"
    promote_encoder(storage, identity)
    return True, f"promoted: precision@1 on held-out people rose from {before[name]:.3f} to {after[name]:.3f}"


def _of_current_version(storage: Storage) -> str | None:
    return read_version(storage).manifest.encoder.id if current_number(storage) is not None else None


def _precision_of(storage: Storage, encoder: str, *, rows: list[Row], labels: list[str], people: set[str]) -> float:
    """Precision@1 of another encoder on the same held-out faces, cut as its own card says."""
    stored = read_encoder(storage, encoder)
    net = load_encoder(parse_card(stored.card, where=f"encoder {encoder}"), stored.weights, threads=os.cpu_count() or 1)
    chosen = [n for n, label in enumerate(labels) if label in people]
    emb_ND = net.embed(_inputs([rows[n] for n in chosen], net.card))
    return precision_at_1(emb_ND, [labels[n] for n in chosen])
