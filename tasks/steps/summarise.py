"""What a build says of itself at its end."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.layout import open_store
from store.manifest import Manifest
from store.schemas import VERSION_PHOTOS
from store.storage import Storage
from store.version_files import read_photos_of
from store.versions import PublishedVersion, current_number, read_version
from tasks.steps.find_faces import shard_of
from tasks.steps.index_words import index_rows
from tasks.steps.plan_build import BuildPlan
from tasks.steps.report import count_rejects

__all__ = ["REJECTED", "summarise_build"]

REJECTED = ("unreadable", "too_large", "too_small", "failed")
"""Statuses of photos that could not be used."""

_REJECTS = 8
_COLUMNS = ["status", "reason", "shard"]
_NO_PHOTOS = VERSION_PHOTOS.empty_table().select(_COLUMNS)
_LOOK_IN = {"photos": "photos.parquet", "report": "report.html"}
_NOTHING_EMBEDDED = {"faces": 0, "from_stored_crops": 0, "instead_of": None}


def summarise_build(
    plan: BuildPlan, *, store: str, published: bool, seconds: dict[str, float], computed: dict[str, int]
) -> dict[str, Any]:
    """The build's summary: of the whole current version, whether or not this build published it.

    Args:
        plan: what was done.
        store: its uri.
        published: whether this build made a version.
        seconds: a stage.
        computed: shards computed and shards found finished, by name.
    """
    storage = open_store(store)
    version = read_version(storage) if current_number(storage) is not None else None
    manifest = version.manifest if version else None
    photos = _photos(storage, version) if version and published else _NO_PHOTOS
    return {
        "version": version.number if version else None,
        "parent": manifest.parent if manifest else None,
        "published": published,
        "plan": plan.counts.as_json(),
        "photos": {status: n for status, n in manifest.counts.items() if n} if manifest else {},
        "seen": manifest.photos if manifest else 0,
        "rejects": _rejects(photos),
        "new": _new(photos, plan),
        "look_in": _look_in(storage, version) if version else {},
        "faces": manifest.faces if manifest else 0,
        "index": None
        if manifest is None
        else {
            "key": manifest.index.key,
            "why": manifest.index.why,
            "recall_at_10": (manifest.metrics or {}).get("recall_at_10"),
            "bytes": manifest.index.bytes,
            "parameters": manifest.index.parameters,
            "budget": manifest.index.budget,
            "metrics": manifest.metrics,
            "gate": manifest.gate,
            "rows": index_rows(manifest),
        },
        "encoder": manifest.encoder.id if manifest else None,
        "embedded": _embedded(storage, plan, manifest) if manifest and published else _NOTHING_EMBEDDED,
        "shards": computed,
        "content_sha256": manifest.content_sha256 if manifest else None,
        "seconds": seconds,
    }


def _embedded(storage: Storage, plan: BuildPlan, manifest: Manifest) -> dict[str, Any]:
    """Faces that this build embedded; of these, those whose crops were stored before; and the encoder it took the place of."""
    searched = {shard_of(request) for request in plan.requests}
    fresh = [shard for shard in manifest.shards if shard.name not in plan.embedded]
    parent = None if manifest.parent is None else read_version(storage, manifest.parent).manifest.encoder.id
    return {
        "faces": sum(shard.faces for shard in fresh),
        "from_stored_crops": sum(shard.faces for shard in fresh if shard.name not in searched),
        "instead_of": parent if parent != manifest.encoder.id else None,
    }


def _photos(storage: Storage, version: PublishedVersion) -> pa.Table:
    """What became of each photo of a version, and the shard that its row is from."""
    return read_photos_of(storage, version, _COLUMNS)


def _rejects(photos: pa.Table) -> list[dict[str, Any]]:
    """The commonest reasons why photos are not in the index."""
    return [{"status": status, "reason": reason, "photos": n} for status, reason, n in count_rejects(photos)[:_REJECTS]]


def _new(photos: pa.Table, plan: BuildPlan) -> dict[str, int]:
    """Photos that this build computed, and those of them that could not be used; no face is no reject."""
    shards = pa.array([shard_of(ref) for ref in (*plan.requests, *plan.finished)], pa.string())
    new = photos.filter(pc.is_in(photos["shard"], value_set=shards))
    rejected = pc.sum(pc.is_in(new["status"], value_set=pa.array(REJECTED))).as_py() or 0
    return {"photos": new.num_rows, "rejected": rejected}


def _look_in(storage: Storage, version: PublishedVersion) -> dict[str, str]:
    """Where every photo's row stands, and where people read about them."""
    return {what: storage.uri_of(version.path_of(name)) for what, name in _LOOK_IN.items()}
