"""Task: train an encoder on a store."""

from typing import Any

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import train_encoder as step
from tasks.steps.plan_build import BuildPlan

__all__ = ["train_encoder"]


@task(name="train-encoder", **policies.ONCE)
def train_encoder(plan: BuildPlan, **settings: Any) -> step.TrainedEncoder:
    """Train on every labelled photo of a plan."""
    log = get_run_logger()
    trained = step.train_on_store(plan, on_epoch=lambda epoch: log.info("%s", epoch), **settings)
    log.info("encoder %s after %d epochs; %s", trained.encoder, trained.epochs, trained.why)
    return trained
