"""Task: train an encoder on a store."""

from typing import Any

from prefect import get_run_logger, task

from models.training import EpochRecord
from tasks import policies
from tasks.steps import train_encoder as step
from tasks.steps.plan_build import BuildPlan

__all__ = ["train_encoder"]


@task(name="train-encoder", **policies.ONCE)
def train_encoder(plan: BuildPlan, **settings: Any) -> step.TrainedEncoder:
    """Train on every labelled photo of a plan."""
    log = get_run_logger()

    def tell(epoch: EpochRecord) -> None:
        text = "epoch %d: contrastive loss %.3f, reconstruction %.3f, precision@1 of validation people %.3f"
        log.info(text, epoch.epoch, epoch.contrastive_loss, epoch.reconstruction_loss, epoch.validation.precision_at_1)

    trained = step.train_on_store(plan, on_epoch=tell, **settings)
    log.info("encoder %s after %d epochs; %s", trained.encoder, trained.epochs, trained.why)
    return trained
