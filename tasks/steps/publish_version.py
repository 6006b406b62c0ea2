"""Publish a checked draft, and sweep what its build left under runs/."""

import contextlib
from pathlib import PurePosixPath

from store.errors import VersionError
from store.layout import open_store
from store.manifest import parse_manifest
from store.refs import ArtifactRef
from store.version_files import files_of
from store.versions import publish, read_version
from tasks.steps.draft_version import files_of_draft
from tasks.steps.forget_purge import holds_forgotten, purge_forgotten
from tasks.steps.plan_build import BuildPlan, discard_plan

__all__ = ["publish_version"]


def publish_version(draft: ArtifactRef, *, store: str, plan: BuildPlan) -> int | None:
    """Make the draft the current version.

    Returns:
        Its number; None where photos that had failed were all that was tried, and nothing came of it.

    Raises:
        VersionError: another build published since the plan, somebody in the draft was forgotten, or a file does not read back;
            nothing is published then.
    """
    storage = open_store(store, create=True)
    path = storage.path_of(draft.uri)
    manifest = parse_manifest(storage.read(path, sha256=draft.sha256), where=draft.uri)
    folder = str(PurePosixPath(path).parent)
    staged = dict(files_of_draft(storage, folder, manifest).paths)
    number = None
    if not (plan.only_retries and manifest.content_sha256 == read_version(storage).manifest.content_sha256):
        if holds_forgotten(storage, staged):
            raise VersionError(
                "somebody was forgotten while this build was running, or is not forgotten to the end: "
                "run `lookalike forget --resume`, then the build again"
            )
        version = publish(storage, staged=staged, manifest=manifest, parent=plan.parent)
        number = version.number
        if holds_forgotten(storage, files_of(storage, version).paths):  # since the look before
            purge_forgotten(storage)
    with contextlib.suppress(Exception):  # it is done, whatever becomes of what may be erased
        storage.remove(folder)
        discard_plan(plan, store=store)
    return number
