"""Flow `build-index`: from a source of photos to a published index version."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from flows.lineage import record_version
from flows.shards import align_shards, device_here, embed_shards, index_shards, merge_shards, shards_to_compute
from flows.showing import log_stage, name_build, show_build, telling_of_a_refusal
from store.index_choice import RECALL_GATE, AskedBudget, memory_of
from tasks import policies
from tasks.check_version import check_version
from tasks.computing import computing
from tasks.list_photos import list_photos
from tasks.plan_build import plan_build
from tasks.publish_version import publish_version
from tasks.resolve_encoder import resolve_encoder
from tasks.steps.build_metrics import metrics_of_build
from tasks.steps.compare_listing import LookAt, look_at_of
from tasks.steps.contract import Contract
from tasks.steps.hold_plan import hold_plan
from tasks.steps.look_for_photos import answer_plan
from tasks.steps.plan_build import discard_plan, with_budget
from tasks.steps.progress import Stages
from tasks.steps.summarise import summarise_build

__all__ = ["build_index"]


@flow(name="build-index", flow_run_name="build {source}", task_runner=policies.threads(), **policies.LONG_RUN)
def build_index(
    source: str,
    store: str = "lookalike-store",
    encoder: str | None = None,
    labels: Literal["folder"] | None = None,
    workers: Annotated[int, Field(ge=1, le=256)] = policies.WORKERS,
    shard_photos: Annotated[int, Field(ge=1, le=100_000)] = 256,
    retry: Literal["failed"] | None = None,
    full: bool = False,
    cluster: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    memory: str | None = None,
    latency_ms: Annotated[float, Field(gt=0)] | None = None,
    recall: Annotated[float, Field(ge=RECALL_GATE, lt=1)] | None = None,
) -> dict[str, Any]:
    """Find, align and embed every face of a source's photos and publish an index version.

    Shards that are stored already are not computed again; with nothing new, nothing is published.

    Args:
        source: a folder, a glob, an s3:// prefix or other fsspec url, or a list (.txt, .csv, .parquet) of paths and urls.
        store: a folder or an s3:// prefix; made when it is missing.
        encoder: a published encoder's name, an id in the store, or the path of an .onnx file with its card beside it.
        labels: "folder" takes the name of a photo's folder as the person's name.
        workers: child processes that compute shards.
        shard_photos: photos a shard, about.
        retry: "failed" tries again the photos that could not be read before, and looks at nothing else.
        full: read every photo and compare its hash, whatever its size and time say.
        cluster: dask://host:port of a scheduler whose workers compute the shards; empty for this machine.
        device: "cuda" computes on GPUs, a process each, and the heavy parts of the index on one of them.
        memory: that the index may hold while it answers, such as 512M or 8G; empty leaves it as it was, 4G at first.
        latency_ms: milliseconds that a query may take on one core; empty leaves it as it was, 20 at first.
        recall: recall@10 that an approximate index is tuned for; empty leaves it as it was, 0.95 at first.
    """
    with policies.one_build(store), metrics_of_build(store) as measured:
        summary = _build(
            source,
            store=store,
            encoder=encoder,
            labels=labels,
            workers=workers,
            shard_photos=shard_photos,
            look_at=look_at_of(retry=retry, full=full),
            cluster=cluster,
            device=device,
            asked=AskedBudget(memory_of(memory) if memory else None, latency_ms, recall),
        )
        measured.append(summary)
    show_build(summary, store=store)
    return summary


def _build(
    source: str,
    *,
    store: str,
    encoder: str | None,
    labels: Literal["folder"] | None,
    workers: int,
    shard_photos: int,
    look_at: LookAt,
    cluster: str | None,
    device: Literal["cpu", "cuda"],
    asked: AskedBudget,
) -> dict[str, Any]:
    stages = Stages(tell=log_stage)
    contract = Contract()
    with stages.stage("list") as counts:
        listed = list_photos(source, store=store)
        counts["photos"] = listed.listing.rows
        embedder = resolve_encoder(encoder, store=store)
    with stages.stage("plan") as counts:
        plan = plan_build(
            listed,
            store=store,
            contract=contract,
            encoder=embedder.id,
            labels=labels,
            shard_photos=shard_photos,
            look_at=look_at,
            may_compact=True,
        )
        plan = with_budget(plan, asked)
        counts.update({"photos": plan.table.rows, "shards to compute": len(plan.requests)})
    name_build(plan.source, plan.counts)
    computed = {"computed": len(plan.requests), "finished": len(plan.finished), "kept": len(plan.kept)}
    computed |= {"compacted": len(plan.compactions)}
    if not plan.needed:
        answer_plan(plan, store=store, look_at=look_at)
        discard_plan(plan, store=store)
        get_run_logger().info("nothing new in %s: nothing published", plan.source)
        return summarise_build(plan, store=store, published=False, seconds=stages.seconds(), computed=computed)
    with hold_plan(plan, store=store):
        hands = min(workers, shards_to_compute(plan))
        with policies.gpu_if(device), computing(workers=hands, cluster=cluster, device=device):
            with stages.stage("align") as counts:
                found = align_shards(plan, store=store, contract=contract, device=device)
                counts.update({"photos": sum(ref.rows for ref in plan.requests), "shards": len(plan.requests)})
            if plan.compactions:
                with stages.stage("compact"):
                    merged, known = merge_shards(plan, store=store, contract=contract, encoder=embedder)
                    found, plan = [*found, *merged], replace(plan, embedded=plan.embedded | known)
            with stages.stage("embed") as counts:
                embedded = embed_shards(found, plan, store=store, contract=contract, encoder=embedder, device=device)
                counts.update(embedded)
        with stages.stage("index") as counts, policies.gpu_if(device):
            draft = index_shards(
                plan,
                store=store,
                contract=contract,
                encoder=embedder,
                workers=workers,
                cluster=cluster,
                device=device,
            )
            counts["faces"] = draft.rows
        with stages.stage("check"), telling_of_a_refusal(store), policies.gpu_if(device_here(device, cluster)):
            checked = check_version(draft, store=store, device=device_here(device, cluster))
        with stages.stage("publish"):
            number = publish_version(checked.draft, store=store, plan=plan)
    answer_plan(plan, store=store, look_at=look_at)
    if number is not None:
        record_version(plan, number, store=store, contract=contract, encoder=embedder, faces=draft.rows)
    return summarise_build(plan, store=store, published=number is not None, seconds=stages.seconds(), computed=computed)
