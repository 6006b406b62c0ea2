"""Task: measure an encoder on pairs whose faces are found and embedded."""

from prefect import get_run_logger, task

from tasks import policies
from tasks.steps import evaluate_encoder as step
from tasks.steps.contract import Contract
from tasks.steps.evaluation import Evaluation
from tasks.steps.plan_evaluation import EvaluationPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["evaluate_encoder"]


@task(name="evaluate-encoder", **policies.ONCE)
def evaluate_encoder(plan: EvaluationPlan, *, store: str, contract: Contract, encoder: EncoderRef) -> Evaluation:
    """Measure verification and retrieval."""
    evaluation = step.measure_encoder(plan, store=store, contract=contract, encoder=encoder)
    get_run_logger().info(
        "accuracy %.4f (deviation %.4f) over %d pairs, AUC %.4f, coverage %.4f",
        evaluation.folds.mean, evaluation.folds.std, evaluation.pairs, evaluation.auc, evaluation.coverage,
    )  # fmt: skip
    return evaluation
