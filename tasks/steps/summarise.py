"""What a build says of itself at its end."""

from typing import Any

from store.layout import open_store
from store.versions import current_number, read_version
from tasks.steps.plan_build import BuildPlan

__all__ = ["summarise_build"]


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
    return {
        "version": version.number if version else None,
        "parent": manifest.parent if manifest else None,
        "published": published,
        "plan": plan.counts.as_json(),
        "photos": {status: n for status, n in manifest.counts.items() if n} if manifest else {},
        "seen": manifest.photos if manifest else 0,
        "faces": manifest.faces if manifest else 0,
        "index": None
        if manifest is None
        else {
            "key": manifest.index.key,
            "why": manifest.index.why,
            "recall_at_10": (manifest.metrics or {}).get("recall_at_10"),
            "bytes": manifest.index.bytes,
        },
        "encoder": manifest.encoder.id if manifest else None,
        "shards": computed,
        "content_sha256": manifest.content_sha256 if manifest else None,
        "seconds": seconds,
    }
