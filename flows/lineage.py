"""What a run made and from what, as assets in Prefect: crops, embeddings, encoder, index version."""

from pathlib import PurePosixPath

from store.layout import encoder_folder, open_store, version_folder
from tasks.record_asset import record_asset
from tasks.steps.contract import Contract
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = ["record_encoder", "record_version"]


def record_version(
    plan: BuildPlan, number: int, *, store: str, contract: Contract, encoder: EncoderRef, faces: int
) -> None:
    """Record what a published version stands on, from its photos to its index; an event each, whatever their number."""
    storage = open_store(store)
    crops = _crops(storage.uri, contract)
    weights = f"{storage.uri}/{encoder_folder(encoder.id)}"
    embeddings = f"{storage.uri}/embeddings/{encoder.id}"
    photos = {"photos": plan.table.rows, "shards": len(plan.requests) + len(plan.finished) + len(plan.kept)}
    record_asset("crops", crops, made_from=[plan.source], metadata=photos | {"contract": contract.id})
    named = {"encoder": encoder.id, "name": encoder.name, "dimension": encoder.dimension}
    record_asset("encoder", weights, made_from=[], metadata=named)
    record_asset("embeddings", embeddings, made_from=[crops, weights], metadata={"faces": faces, "encoder": encoder.id})
    version = f"{storage.uri}/{version_folder(number)}"
    known = {"version": number, "parent": plan.parent, "faces": faces, "photos": plan.table.rows}
    record_asset("index version", version, made_from=[crops, embeddings], metadata=known)


def record_encoder(encoder: str, *, store: str, contract: Contract, promoted: bool) -> None:
    """Record an encoder that was trained on a store's crops."""
    uri = open_store(store).uri
    record_asset(
        "encoder",
        f"{uri}/{encoder_folder(encoder)}",
        made_from=[_crops(uri, contract)],
        metadata={"encoder": encoder, "promoted": promoted},
    )


def _crops(store: str, contract: Contract) -> str:
    return f"{store}/{PurePosixPath('faces') / contract.id}"
