"""Flow `train-encoder`: from a source of labelled photos to an encoder in the store."""

from typing import Annotated, Literal

from prefect import flow
from pydantic import Field

from flows.lineage import record_encoder
from flows.shards import align_shards
from flows.showing import log_stage
from models.training import TrainingSettings
from tasks import policies
from tasks.list_photos import list_photos
from tasks.plan_build import plan_build
from tasks.steps.children import children
from tasks.steps.contract import Contract
from tasks.steps.hold_plan import hold_plan
from tasks.steps.plan_build import discard_plan
from tasks.steps.progress import Stages
from tasks.steps.promotion import PROMOTION_MARGIN
from tasks.steps.train_encoder import NetworkSettings, Processes, TrainedEncoder, TrainingOrder
from tasks.train_encoder import train_encoder as train

__all__ = ["train_encoder"]


@flow(name="train-encoder", flow_run_name="train {source}", task_runner=policies.threads(), **policies.LONG_RUN)
def train_encoder(
    source: str,
    store: str = "lookalike-store",
    start: str = "scratch",
    network: NetworkSettings | None = None,
    settings: TrainingSettings | None = None,
    workers: Annotated[int, Field(ge=1, le=256)] = policies.WORKERS,
    shard_photos: Annotated[int, Field(ge=1, le=100_000)] = 256,
    device: Literal["cpu", "cuda"] = "cpu",
    processes: Processes | None = None,
    promotion_margin: Annotated[float, Field(ge=0, lt=1)] = PROMOTION_MARGIN,
) -> TrainedEncoder:
    """Train an encoder on a source whose photos lie in a folder a person.

    What is missing is listed, aligned and stored first; nothing is embedded and no version is published. A run that was
    killed goes on from its last checkpoint when it is started again with the same parameters.

    Args:
        source: a folder with a folder a person, or an s3:// prefix of that shape.
        store: a folder or an s3:// prefix; made when it is missing.
        start: "scratch", or an Inception-ResNet V1 or ResNet-50: its id in the store, a published name or a file.
        network: the network that scratch means; by default one that suits the device.
        settings: of the training; by default those that suit the device.
        workers: child processes that align shards.
        shard_photos: photos a shard, about.
        device: "cpu" or "cuda", for the training.
        processes: that train together, on this machine and others.
        promotion_margin: by how much precision@1 must be better than that of the network it started from and of the
            encoder in use, on people nothing was learnt from, for the store to use the new encoder.
    """
    stages = Stages(tell=log_stage)
    contract = Contract()
    with stages.stage("list"):
        listed = list_photos(source, store=store)
    with stages.stage("plan"):
        plan = plan_build(
            listed, store=store, contract=contract, encoder=None, labels="folder", shard_photos=shard_photos
        )
    with hold_plan(plan, store=store):
        with stages.stage("align"), children(workers):
            align_shards(plan, store=store, contract=contract)
        with stages.stage("train"), policies.gpu_if(device):
            order = TrainingOrder(
                start=start,
                network=network,
                settings=settings,
                device=device,
                processes=processes or Processes(),
                promotion_margin=promotion_margin,
            )
            trained = train(plan, order, store=store, contract=contract)
    discard_plan(plan, store=store)
    record_encoder(trained.encoder, store=store, contract=contract, promoted=trained.promoted)
    return trained
