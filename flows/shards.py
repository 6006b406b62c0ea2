"""What flows map over workers: a task a shard, or a block of a new index's faces, and progress as they end."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from prefect import unmapped
from prefect.futures import PrefectFuture, as_completed

from flows.showing import Progress
from store.refs import ArtifactRef
from tasks import policies
from tasks.code_faces import code_faces
from tasks.compact_shards import compact_shards
from tasks.computing import computing
from tasks.embed_faces import embed_faces
from tasks.find_faces import find_faces
from tasks.merge_index import merge_index
from tasks.steps.code_faces import CodedBlock
from tasks.steps.compact_shards import CompactedShard
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import EmbeddedFaces
from tasks.steps.find_faces import FoundFaces, shard_of
from tasks.steps.plan_build import BuildPlan
from tasks.steps.progress import report
from tasks.steps.resolve_encoder import EncoderRef
from tasks.write_index import write_index

__all__ = [
    "ShardPlan",
    "align_shards",
    "device_here",
    "embed_shards",
    "index_shards",
    "merge_shards",
    "shards_to_compute",
]


class ShardPlan(Protocol):
    """The shards of a plan, as a build's and an evaluation's have them."""

    @property
    def requests(self) -> tuple[ArtifactRef, ...]:
        """LISTING of each shard that is not committed yet."""

    @property
    def finished(self) -> tuple[ArtifactRef, ...]:
        """LISTING of each new shard that an earlier run committed."""

    @property
    def kept(self) -> tuple[ArtifactRef, ...]:
        """Committed shards that are used as they are."""

    @property
    def embedded(self) -> frozenset[str]:
        """Names of the shards that the encoder's embeddings are stored for."""


def align_shards(plan: ShardPlan, *, store: str, contract: Contract, device: str = "cpu") -> list[FoundFaces]:
    """Commit every shard of a plan; those an earlier run finished come from the cache or the store."""
    fixed: dict[str, Any] = {"store": unmapped(store), "contract": unmapped(contract), "device": unmapped(device)}
    again = policies.stored_in(find_faces, store, refresh=False).map(list(plan.finished), **fixed)
    fresh = policies.stored_in(find_faces, store, refresh=True).map(list(plan.requests), **fixed)
    return _results("align", [*again, *fresh])


def merge_shards(
    plan: BuildPlan, *, store: str, contract: Contract, encoder: EncoderRef
) -> tuple[list[FoundFaces], frozenset[str]]:
    """Put together the shards that a plan wants made of others; returns them, and the names of those embedded already."""
    fixed: dict[str, Any] = {"store": unmapped(store), "contract": unmapped(contract), "encoder": unmapped(encoder)}
    futures = compact_shards.map(list(plan.compactions), parent=unmapped(plan.parent), **fixed)
    merged: list[CompactedShard] = _results("compact", [*futures])
    embedded = frozenset(shard_of(one.shard) for one in merged if one.embedded)
    return [FoundFaces(shard=one.shard, computed=False) for one in merged], embedded


def shards_to_compute(plan: BuildPlan) -> int:
    """How many calls of children a plan may need at once; at least one."""
    unembedded = sum(shard_of(ref) not in plan.embedded for ref in (*plan.kept, *plan.finished))
    return max(1, len(plan.requests) + unembedded)


def embed_shards(
    found: Sequence[FoundFaces],
    plan: ShardPlan,
    *,
    store: str,
    contract: Contract,
    encoder: EncoderRef,
    device: str = "cpu",
) -> dict[str, int]:
    """Embed every shard that the next version stands on and that this encoder has not embedded; returns how much it was."""
    shards = [*found, *(FoundFaces(shard=ref, computed=False) for ref in plan.kept)]
    missing = [shard for shard in shards if shard_of(shard.shard) not in plan.embedded]
    task = policies.stored_in(embed_faces, store, refresh=True)
    fixed: dict[str, Any] = {"store": unmapped(store), "contract": unmapped(contract), "encoder": unmapped(encoder)}
    done: list[EmbeddedFaces] = _results("embed", [*task.map(missing, device=unmapped(device), **fixed)])
    return {"faces": sum(one.embeddings.rows for one in done), "shards": len(done)}


def index_shards(
    plan: BuildPlan,
    *,
    store: str,
    contract: Contract,
    encoder: EncoderRef,
    workers: int,
    cluster: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> ArtifactRef:
    """Write the draft of a version; where its index is made anew of many faces, workers code them block by block.

    Coding is the processor's work: here it takes `workers` children whatever the device, which share a GPU for the comparison with the
    queries. A cluster's workers keep the children that they have for the device.
    """
    own = device_here(device, cluster)
    begun = write_index(plan, store=store, contract=contract, encoder=encoder, device=own)
    if isinstance(begun, ArtifactRef):
        return begun
    fixed: dict[str, Any] = {"store": unmapped(store), "coder": unmapped(begun.coder), "device": unmapped(device)}
    hands = min(workers, max(1, len(begun.requests)))
    with computing(workers=hands, cluster=cluster, device=device if cluster else "cpu"):
        again = policies.stored_in(code_faces, store, refresh=False).map(list(begun.finished), **fixed)
        fresh = policies.stored_in(code_faces, store, refresh=True).map(list(begun.requests), **fixed)
        coded: list[CodedBlock] = _results("code", [*again, *fresh])
    return merge_index(begun, coded, plan, store=store, contract=contract, encoder=encoder)


def device_here(device: Literal["cpu", "cuda"], cluster: str | None) -> Literal["cpu", "cuda"]:
    """Where this process computes what is not mapped: a cluster's workers have the GPUs, the machine that starts a build needs none."""
    return "cpu" if cluster else device


def _results(stage: str, futures: list[PrefectFuture[Any]]) -> list[Any]:
    """The futures' results in their order; the first failure is raised when all have ended."""
    report(stage, 0, len(futures))
    progress = Progress(stage, len(futures))
    for done, _ in enumerate(as_completed(futures), start=1):
        report(stage, done, len(futures))
        progress.at(done)
    return [future.result() for future in futures]
