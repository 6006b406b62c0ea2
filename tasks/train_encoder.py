"""Task: train an encoder on a store."""

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from models.training import EpochRecord
from tasks import policies
from tasks.steps import train_encoder as step
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.training_report import markdown_of_training

__all__ = ["train_encoder"]


@task(name="train-encoder", **policies.ONCE)
def train_encoder(plan: BuildPlan, order: step.TrainingOrder, *, store: str, contract: Contract) -> step.TrainedEncoder:
    """Train on every labelled photo of a plan."""
    log = get_run_logger()

    def tell(epoch: EpochRecord) -> None:
        text = "epoch %d: loss %.3f, precision@1 of validation people %.3f, %.0f photos a second, %.0f s left"
        figures = (epoch.loss, epoch.validation.precision_at_1, epoch.faces_per_second, epoch.seconds_left)
        log.info(text, epoch.epoch, *figures)

    trained = step.train_on_store(plan, order, store=store, contract=contract, on_epoch=tell, say=log.warning)
    log.info("encoder %s after %d epochs; %s", trained.encoder, trained.epochs, trained.why)
    create_markdown_artifact(markdown_of_training(trained, store=store), key="trained-encoder", description=trained.why)
    return trained
