"""Compare two versions: photos, faces, settings and metrics."""

from typing import Any

import numpy as np

from store.layout import open_store
from store.manifest import Manifest
from store.storage import Storage
from store.version_files import read_faces_of, read_photos_of
from store.versions import PublishedVersion, read_version

__all__ = ["diff_versions"]

_OF_A_PHOTO = ("photo_sha256", "status", "label", "metadata")
_SETTINGS = ("sources", "contract", "encoder", "index", "labels", "labelled_sources", "requires")


def diff_versions(before: int, after: int, *, store: str) -> dict[str, Any]:
    """What changed from one version to another.

    Args:
        before: a version's number.
        after: another one's; it need not be newer.
        store: its uri.

    Returns:
        photos: added, removed and changed (other bytes, status, label or metadata under the same uri); faces: added and
        removed, by face id; settings and metrics: by name, the values before and after, of those that differ.

    Raises:
        VersionError: one of them does not exist.
        ArtifactError: a table is not what was published.
    """
    storage = open_store(store)
    old, new = read_version(storage, before), read_version(storage, after)
    photos_before, photos_after = _photos(storage, old), _photos(storage, new)
    both = photos_before.keys() & photos_after.keys()
    faces_before, faces_after = _face_ids(storage, old), _face_ids(storage, new)
    return {
        "from": before,
        "to": after,
        "photos": {
            "added": len(photos_after) - len(both),
            "removed": len(photos_before) - len(both),
            "changed": sum(photos_before[uri] != photos_after[uri] for uri in both),
        },
        "faces": {
            "added": len(np.setdiff1d(faces_after, faces_before)),
            "removed": len(np.setdiff1d(faces_before, faces_after)),
        },
        "settings": _differences(_settings(old.manifest), _settings(new.manifest)),
        "metrics": _differences(_metrics(old.manifest), _metrics(new.manifest)),
    }


def _photos(storage: Storage, version: PublishedVersion) -> dict[str, tuple[Any, ...]]:
    table = read_photos_of(storage, version, ["uri", *_OF_A_PHOTO])
    columns = (table.column(name).to_pylist() for name in _OF_A_PHOTO)
    return dict(zip(table.column("uri").to_pylist(), zip(*columns, strict=True), strict=True))


def _face_ids(storage: Storage, version: PublishedVersion) -> Any:
    return read_faces_of(storage, version, ["face_id"]).column("face_id").to_numpy()


def _settings(manifest: Manifest) -> dict[str, Any]:
    """What the version was made by; the index's size and hash follow from it."""
    document = manifest.model_dump(mode="json")
    settings = {name: document[name] for name in _SETTINGS}
    settings["index"] = {k: v for k, v in settings["index"].items() if k in {"key", "metric", "parameters"}}
    return settings


def _metrics(manifest: Manifest) -> dict[str, Any]:
    counts = {f"photos {status}": n for status, n in manifest.counts.items() if n}
    return {"faces": manifest.faces, "photos": manifest.photos} | counts | (manifest.metrics or {})


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    names = sorted(before.keys() | after.keys())
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
