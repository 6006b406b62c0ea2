"""Flow `evaluate`: how well an encoder tells people apart, on pairs of photos."""

from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from flows.shards import align_shards, embed_shards
from flows.showing import log_stage
from tasks import policies
from tasks.evaluate_encoder import evaluate_encoder
from tasks.plan_evaluation import plan_evaluation
from tasks.resolve_encoder import resolve_encoder
from tasks.steps.children import children
from tasks.steps.contract import Contract
from tasks.steps.evaluation_page import evaluation_markdown
from tasks.steps.plan_evaluation import discard_evaluation
from tasks.steps.progress import Stages

__all__ = ["evaluate"]


@flow(
    name="evaluate",
    flow_run_name="evaluate {pairs}",
    task_runner=policies.threads(),
    persist_result=True,
    result_serializer="json",
    **policies.LONG_RUN,
)
def evaluate(
    images: str,
    pairs: str,
    store: str = "lookalike-store",
    encoder: str | None = None,
    exclude_people: str | None = None,
    workers: Annotated[int, Field(ge=1, le=256)] = policies.WORKERS,
    shard_photos: Annotated[int, Field(ge=1, le=100_000)] = 256,
) -> dict[str, Any]:
    """Measure an encoder: are two photos of one person, and who is the nearest?

    The figures are the run's result, and with curves a Markdown artifact. Shards and embeddings that are stored already are
    not computed again.

    Args:
        images: the folder or s3:// prefix that the names of the pairs file are relative to.
        pairs: path or url of a pairs file: LFW's View 1 or View 2, or a CSV with the columns first, second, same and fold
            (optional).
        store: a folder or an s3:// prefix; made when it is missing.
        encoder: a published encoder's name, an id in the store, or the path of an .onnx file with its card beside it.
        exclude_people: a file with one name a line; pairs that show one of them are left out.
        workers: child processes that compute shards.
        shard_photos: photos a shard, about.
    """
    stages, contract = Stages(tell=log_stage), Contract()
    with stages.stage("list"):
        embedder = resolve_encoder(encoder, store=store)
        plan = plan_evaluation(
            pairs,
            images=images,
            store=store,
            contract=contract,
            encoder=embedder.id,
            exclude_people=exclude_people,
            shard_photos=shard_photos,
        )
    with children(workers):
        with stages.stage("align"):
            found = align_shards(plan, store=store, contract=contract)
        with stages.stage("embed"):
            embed_shards(found, plan, store=store, contract=contract, encoder=embedder)
    with stages.stage("measure"):
        evaluation = evaluate_encoder(plan, store=store, contract=contract, encoder=embedder)
    discard_evaluation(plan, store=store)
    create_markdown_artifact(
        evaluation_markdown(evaluation), key="evaluation", description=f"{embedder.name} on {plan.pairs_file}"
    )
    return evaluation.as_json() | {"seconds": stages.seconds()}
