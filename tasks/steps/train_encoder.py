"""Train an encoder on the crops and labels of a store, and keep it there."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.pairs import split_for_training
from models.training import (
    GPU_SETTINGS,
    PHOTO_SETTINGS,
    EpochRecord,
    RunOptions,
    StepsDone,
    TrainingDivergedError,
    TrainingResult,
    TrainingSettings,
)
from store.encoders import promote_encoder
from store.errors import LookalikeError
from store.layout import encoder_folder, open_store
from store.storage import Storage
from tasks.steps.contract import Contract
from tasks.steps.labelled_faces import face_inputs, labelled_faces
from tasks.steps.plan_build import BuildPlan
from tasks.steps.progress import report
from tasks.steps.promotion import PROMOTION_MARGIN, Promotion, judge, rivals_of
from tasks.steps.resolve_encoder import resolve_encoder
from tasks.steps.train_processes import Processes, run_job_in_processes
from tasks.steps.training_curves import curves_csv, curves_png
from tasks.steps.training_job import TrainingJob, job_folder, run_job
from tasks.steps.training_network import (
    DEMO_NETWORK,
    GPU_NETWORK,
    SCRATCH,
    NetworkSettings,
    keep_encoder,
    new_encoder,
    start_network,
)

__all__ = [
    "DEMO_NETWORK",
    "GPU_NETWORK",
    "SCRATCH",
    "NetworkSettings",
    "Processes",
    "TrainedEncoder",
    "TrainingOrder",
    "new_encoder",
    "train_on_store",
]

Row = dict[str, Any]


@dataclass(frozen=True)
class TrainingOrder:
    """What is to be trained, and how.

    Attributes:
        start: "scratch", or one of the project's networks: its id in the store, a published encoder's name, or a file.
        network: what scratch means; None takes a size that suits the device.
        settings: of the training; None takes what suits the device.
        device: "cpu" or "cuda".
        processes: how many train together.
        promotion_margin: in precision@1, by which the new encoder must be better to be used from then on.
    """

    start: str = SCRATCH
    network: NetworkSettings | None = None
    settings: TrainingSettings | None = None
    device: str = "cpu"
    processes: Processes = field(default_factory=Processes)
    promotion_margin: float = PROMOTION_MARGIN

    @property
    def network_used(self) -> NetworkSettings:
        """The network, the device's own where none was named."""
        return self.network or (GPU_NETWORK if self.device == "cuda" else NetworkSettings())

    @property
    def settings_used(self) -> TrainingSettings:
        """The settings, the device's own where none were named."""
        return self.settings or (GPU_SETTINGS if self.device == "cuda" else PHOTO_SETTINGS)


@dataclass(frozen=True)
class TrainedEncoder:
    """What a training gave.

    Attributes:
        encoder: the best epoch's encoder, in the store.
        epochs: how many ran.
        best_epoch: the one kept, from 1.
        stopped_by: "epochs", "max_seconds" or "patience".
        metrics_before: of the network it started from, on held-out people.
        metrics_after: of the best epoch, on the same people.
        promoted: whether later builds use it by default.
        why: the reason, in a sentence.
        promotion: what it was compared with.
        curves: uris of the curves, `csv` and `png`.
        held_out: people nothing was learned from or chosen by.
    """

    encoder: str
    epochs: int
    best_epoch: int
    stopped_by: str
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    promoted: bool
    why: str
    promotion: dict[str, Any]
    curves: dict[str, str]
    held_out: tuple[str, ...] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """What the command prints; names of people stay out."""
        shown = {name: value for name, value in asdict(self).items() if name != "held_out"}
        return shown | {"held_out_people": len(self.held_out)}


def train_on_store(
    plan: BuildPlan,
    order: TrainingOrder,
    *,
    store: str,
    contract: Contract,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> TrainedEncoder:
    """Train on every labelled photo of a plan: its main face, cut from the stored crop.

    People are split into those to learn from, those to choose the best epoch by, and those held out, on whom the
    figures are taken. The new encoder is promoted when it is better on them, by a margin, than what it started from and
    than the encoder in use. The state of the training is kept under the store's runs/: the same call goes on after a kill.

    Args:
        plan: its shards are committed.
        order: what to train, and how.
        store: its uri.
        contract: of the shards.
        on_epoch: is told of each epoch.
        say: is told what the user has to do elsewhere.

    Raises:
        LookalikeError: too few people, an encoder that cannot be trained, or a training that came to no number; the
            message says what is wanted. Nothing is kept then.
    """
    storage = open_store(store, create=True)
    rows, labels = labelled_faces(storage, plan, contract=contract.id)
    settings = order.settings_used
    start = order.start if order.start == SCRATCH else resolve_encoder(order.start, store=store).id
    try:
        card, net = start_network(storage, start, order.network_used)
        split = split_for_training(labels, seed=settings.seed)
        job = TrainingJob(face_inputs(rows, card), labels, card, dict(net.state_dict()), settings, split)
        result = _run(job, storage, order, on_epoch=on_epoch, say=say)
    except TrainingDivergedError as error:
        photos = ", ".join(str(rows[row]["uri"]) for row in error.rows[:3])
        raise LookalikeError(f"{error}; among its {len(error.rows)} photos are {photos}") from error
    except EncoderError as error:
        raise LookalikeError(f"this network cannot be trained: {error}") from error
    except ValueError as error:
        raise LookalikeError(
            f"{plan.source} cannot be trained on: {error}; photos of a person lie in a folder of their own"
        ) from error
    promotion = _judged(storage, start, result, rows=rows, job=job, margin=order.promotion_margin)
    net.load_state_dict(result.state_dict)
    identity = keep_encoder(storage, card, net, extra=_card_entries(plan, order, job, result, promotion))
    curves = _keep_curves(storage, identity, result, card)
    if promotion.promoted:
        promote_encoder(storage, identity)
    storage.remove(job_folder(job.identity))
    return TrainedEncoder(
        encoder=identity,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
        stopped_by=result.stopped_by,
        metrics_before=asdict(result.metrics_before),
        metrics_after=asdict(result.metrics_after),
        promoted=promotion.promoted,
        why=promotion.why,
        promotion=promotion.as_json(),
        curves=curves,
        held_out=split.held_out,
    )


def _run(
    job: TrainingJob,
    storage: Storage,
    order: TrainingOrder,
    *,
    on_epoch: Callable[[EpochRecord], None] | None,
    say: Callable[[str], None],
) -> TrainingResult:
    if order.processes.several:
        return run_job_in_processes(job, storage, order.processes, device=order.device, on_epoch=on_epoch, say=say)
    return run_job(job, storage, RunOptions(device=order.device, on_epoch=on_epoch, on_step=_report_step))


def _judged(
    storage: Storage, start: str, result: TrainingResult, *, rows: list[Row], job: TrainingJob, margin: float
) -> Promotion:
    """The gate, over the held-out people."""
    people = set(job.split.held_out)
    asked = [n for n, label in enumerate(job.labels) if label in people]
    labels = [job.labels[n] for n in asked]
    rivals = rivals_of(storage, start=start, before=result.metrics_before, rows=[rows[n] for n in asked], labels=labels)
    queries = sum(photos for photos in Counter(labels).values() if photos > 1)
    return judge(result.metrics_after, rivals, margin=margin, queries=queries)


def _report_step(steps: StepsDone) -> None:
    report("train", steps.done, steps.total)


def _card_entries(
    plan: BuildPlan, order: TrainingOrder, job: TrainingJob, result: TrainingResult, promotion: Promotion
) -> dict[str, Any]:
    """What the new encoder's card says beyond its identity."""
    training = {
        "source": plan.source,
        "started_from": order.start,
        "settings": asdict(job.settings),
        "epochs": len(result.epochs),
        "best_epoch": result.best_epoch,
        "stopped_by": result.stopped_by,
        "people": {name: len(people) for name, people in asdict(job.split).items()},
        "photos": len(job.labels),
        "last_epochs": [asdict(record) for record in result.epochs[-50:]],
    }
    return {
        "name": f"trained on {len(job.split.train)} people",
        "training": training,
        "metrics": {"before": asdict(result.metrics_before), "after": asdict(result.metrics_after)},
        "promotion": promotion.as_json(),
    }


def _keep_curves(storage: Storage, identity: str, result: TrainingResult, card: EncoderCard) -> dict[str, str]:
    folder = encoder_folder(identity)
    title = f"{card.architecture}, {card.dimension} dimensions, encoder {identity[:8]}"
    storage.write(f"{folder}/training.csv", curves_csv(result.epochs))
    storage.write(f"{folder}/training.png", curves_png(result.epochs, best_epoch=result.best_epoch, title=title))
    return {kind: storage.uri_of(f"{folder}/training.{kind}") for kind in ("csv", "png")}
