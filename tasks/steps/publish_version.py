"""Publish a checked draft, and sweep what its build left under runs/."""

import contextlib
from pathlib import PurePosixPath

from store.layout import open_store
from store.manifest import parse_manifest
from store.refs import ArtifactRef
from store.versions import publish
from tasks.steps.plan_build import BuildPlan, discard_plan

__all__ = ["publish_version"]


def publish_version(draft: ArtifactRef, *, store: str, plan: BuildPlan) -> int:
    """Make the draft the current version.

    Returns:
        Its number.

    Raises:
        VersionError: another build published since the plan, or a file does not read back; nothing is published then.
    """
    storage = open_store(store, create=True)
    path = storage.path_of(draft.uri)
    manifest = parse_manifest(storage.read(path, sha256=draft.sha256), where=draft.uri)
    folder = str(PurePosixPath(path).parent)
    staged = {name: f"{folder}/{name}" for name in manifest.files}
    published = publish(storage, staged=staged, manifest=manifest, parent=plan.parent)
    with contextlib.suppress(Exception):  # it is published, whatever becomes of what may be erased
        storage.remove(folder)
        discard_plan(plan, store=store)
    return published.number
