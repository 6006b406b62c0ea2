"""Task: record with Prefect that something a store holds was made, and from what."""

import re
from typing import Any

from prefect.assets import Asset, AssetProperties, add_asset_metadata, materialize

from tasks import policies

__all__ = ["asset_key", "record_asset"]

_RESTRICTED = re.compile(r"[\s#?&%\"'<>\[\]{}|\\^`\0]")
_MAX_KEY = 512


@materialize("lookalike://store", name="record-asset", task_run_name="record-{name}", by="lookalike", **policies.ONCE)
def _record(name: str, key: str, metadata: dict[str, Any]) -> None:
    del name
    add_asset_metadata(key, metadata)


def record_asset(name: str, uri: str, *, made_from: list[str], metadata: dict[str, Any]) -> None:
    """Emit `prefect.asset.materialization.succeeded` for one thing a store holds: its crops, embeddings, encoder or version.

    Args:
        name: for people.
        uri: of the thing, in the store.
        made_from: uris of what it was made from.
        metadata: small; it becomes the event's payload.
    """
    key = asset_key(uri)
    task = _record.with_options(
        assets=[Asset(key=key, properties=AssetProperties(name=name))],
        asset_deps=[asset_key(one) for one in made_from],
    )
    task(name, key, metadata)


def asset_key(uri: str) -> str:
    """The uri as Prefect takes it for an asset: a url, without the characters that it refuses."""
    url = uri if "://" in uri else f"file://{uri}"
    return _RESTRICTED.sub("_", url)[:_MAX_KEY]
