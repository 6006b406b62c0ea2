"""Verify a store: every hash, every count, every file that should be there, and every one that should not."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from models.card import CardError, encoder_id, parse_card
from store.audit import verify_audit
from store.encoders import encoder_in_use, read_encoder, stored_encoders
from store.errors import LookalikeError
from store.forgotten import read_forgotten
from store.layout import CURRENT, ENCODER_CURRENT, FOLDERS, encoder_folder, open_store, version_folder
from store.leases import live_leases, storage_now_s
from store.manifest import Manifest, Problem, problems_of_manifest
from store.removal import REMOVAL, read_removal
from store.storage import Storage
from store.versions import ABANDONED_S, CLAIM, MANIFEST, PublishedVersion, claimed_numbers, current_number, read_version
from tasks.steps.verify_shards import Shards
from tasks.steps.verify_version import verify_version

__all__ = ["Verified", "verify_store"]

_TABLES = ("photos", "faces", "embeddings")


@dataclass
class Verified:
    """What a verification found.

    Attributes:
        problems: path in the store, what is wrong, and a word for its kind.
        versions: numbers of those looked at.
        shards: how many were read.
        unused: shards that no version uses: made for a training or by a build that was stopped, whole and ready to be used.
    """

    problems: list[Problem] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    shards: int = 0
    unused: int = 0

    def add(self, path: str, kind: str, sentence: str) -> None:
        """Note a problem; one of a kind and path is enough."""
        if not any((p.path, p.kind) == (path, kind) for p in self.problems):
            self.problems.append(Problem(path=path, sentence=" ".join(sentence.split()), kind=kind))

    def as_json(self) -> dict[str, Any]:
        """What the command prints."""
        problems = [{"path": p.path, "sentence": p.sentence, "kind": p.kind} for p in self.problems]
        return {"problems": problems, "versions": self.versions, "shards": self.shards, "unused_shards": self.unused}


def verify_store(store: str, *, version: int | None = None) -> Verified:
    """Read everything in a store again, whatever was remembered of it.

    Args:
        store: its uri.
        version: only this one, with its shards and its encoder; None takes all, CURRENT, and what nobody names.

    Raises:
        VersionError: there is no such version.
        StoreError: there is no store.
    """
    storage, found = open_store(store), Verified()
    if version is not None:
        read_version(storage, version)
    shards = Shards(storage, found.add)
    numbers = sorted(claimed_numbers(storage)) if version is None else [version]
    versions = [v for number in numbers if (v := _read_version(storage, number, found)) is not None]
    for one in versions:
        found.versions.append(one.number)
        verify_version(storage, one, shards, found.add)
    _verify_encoders(storage, {v.manifest.encoder.id for v in versions}, found, every=version is None)
    if version is None:
        _verify_current(storage, versions, found)
        _verify_builds(versions, found)
        _find_orphans(storage, numbers, versions, shards, found)
        for problem in verify_audit(storage):
            found.add(problem.path, problem.kind, problem.sentence)
    found.shards = shards.read
    return found


def _read_version(storage: Storage, number: int, found: Verified) -> PublishedVersion | None:
    path = f"{version_folder(number)}/{MANIFEST}"
    if not storage.exists(path):
        return None
    data = storage.read(path)
    if problems := problems_of_manifest(data):
        for one in problems:
            found.add(path, "manifest", f"{one.path}: {one.sentence}" if one.path else one.sentence)
        return None
    manifest = Manifest.model_validate_json(data)
    unknown = set(json.loads(data)) - set(Manifest.model_fields)
    if unknown and "self_sha256" not in unknown:
        found.add(
            path, "manifest", f"it has the keys {sorted(unknown)[:3]} and no self_sha256: a letter of it has changed"
        )
    if manifest.version != number:
        found.add(path, "number", f"it says version {manifest.version} and stands in the folder of version {number}")
    if manifest.parent is not None and manifest.parent >= number:
        found.add(path, "number", f"its parent is version {manifest.parent}, which is not older")
    claim = f"{version_folder(number)}/{CLAIM}"
    mark = storage.read(claim).decode(errors="replace") if storage.exists(claim) else ""
    if mark != manifest.build and not (len(mark) == 32 and set(mark) <= set("0123456789abcdef")):
        found.add(claim, "claim", f"it holds {mark[:40]!r}, wanted the build {manifest.build}")
    return PublishedVersion(number=number, manifest=manifest)


def _verify_current(storage: Storage, versions: list[PublishedVersion], found: Verified) -> None:
    numbers = [v.number for v in versions]
    try:
        now = current_number(storage)
    except LookalikeError as error:
        return found.add(CURRENT, "current", str(error))
    if now is None and versions:
        return found.add(CURRENT, "current", f"it is missing, and there are the versions {numbers}")
    if now is not None and now not in numbers:
        found.add(CURRENT, "current", f"it names version {now}, which is not there or damaged; there are {numbers}")
    return None


def _verify_builds(versions: list[PublishedVersion], found: Verified) -> None:
    first: dict[str, int] = {}
    for one in versions:
        if (other := first.setdefault(one.manifest.build, one.number)) != one.number:
            found.add(one.path_of(MANIFEST), "build", f"it is of the same build as version {other}")


def _verify_encoders(storage: Storage, named: set[str], found: Verified, *, every: bool) -> None:
    for encoder in sorted(named | (set(stored_encoders(storage)) if every else set())):
        folder = encoder_folder(encoder)
        try:
            stored = read_encoder(storage, encoder)
            if (got := encoder_id(parse_card(stored.card, where=folder))) != encoder:
                found.add(f"{folder}/card.json", "encoder", f"the card is that of encoder {got}")
        except (LookalikeError, CardError) as error:
            found.add(folder, "encoder", str(error))
    if every:
        for path, read in ((ENCODER_CURRENT, encoder_in_use), ("forgotten", read_forgotten)):
            try:
                value = read(storage)
            except (LookalikeError, UnicodeDecodeError) as error:
                found.add(path, "forgotten" if path == "forgotten" else "encoder", str(error))
                continue
            if isinstance(value, str) and value not in stored_encoders(storage):
                found.add(path, "encoder", f"it names {value[:40]!r}, which is not stored")


# What nobody names


def _find_orphans(
    storage: Storage, numbers: Iterable[int], versions: list[PublishedVersion], shards: Shards, found: Verified
) -> None:
    going = set(_removal_paths(storage, found))
    for number in numbers:
        _find_in_version(storage, number, next((v for v in versions if v.number == number), None), going, found)
    for name in storage.names("versions"):
        if not (name.isascii() and name.isdigit()) and f"versions/{name}" not in {CURRENT, REMOVAL}:
            found.add(f"versions/{name}", "orphan", "nothing of lookalike's has this name")
    for name in storage.names():
        if not name.startswith(".") and name not in FOLDERS:
            found.add(name, "orphan", "nothing of lookalike's has this name")
    in_use = _in_use(storage, found)
    for kind in _TABLES:
        for owner in storage.names(kind):
            for name in storage.names(f"{kind}/{owner}"):
                path = f"{kind}/{owner}/{name}"
                shard = PurePosixPath(name).stem
                if path not in shards.named and path not in going and shard not in in_use:
                    _judge_unused(path, kind, owner, shards, found)


def _judge_unused(path: str, kind: str, owner: str, shards: Shards, found: Verified) -> None:
    """A whole shard that no version uses is ready for the next build; anything else is left over."""
    shard = PurePosixPath(path).stem
    whole = (
        shards.is_whole_embeddings(owner, shard) if kind == "embeddings" else shards.is_whole_shard(owner, shard)
    ) and path.endswith(f"{shard}.parquet")
    if not whole:
        found.add(path, "orphan", "no version names it, and it is no shard that a build could use")
    elif kind == "photos":
        found.unused += 1


def _find_in_version(
    storage: Storage, number: int, version: PublishedVersion | None, going: set[str], found: Verified
) -> None:
    folder = version_folder(number)
    there = {f"{folder}/{name}" for name in storage.names(folder)} - going - {f"{folder}/{CLAIM}"}
    if version is None:
        there -= {f"{folder}/{MANIFEST}"}  # a damaged one has been told of
        if there and not storage.exists(f"{folder}/{MANIFEST}") and not _is_young(storage, f"{folder}/{CLAIM}"):
            for path in there:
                found.add(path, "orphan", "a publish that ended half-way left it behind; `lookalike vacuum` removes it")
        return
    wanted = {version.path_of(name) for name in (*version.manifest.files, MANIFEST)}
    own = f"{folder}/r{version.manifest.revision}"
    if own in there:
        there = there - {own} | {f"{own}/{name}" for name in storage.names(own)}
    for path in sorted(there - wanted):
        found.add(path, "orphan", f"version {number}'s manifest does not name it")


def _is_young(storage: Storage, claim: str) -> bool:
    """Whether a publish that claimed a number may still be going on."""
    claimed = storage.modified_s(claim)
    return claimed is not None and storage_now_s(storage) - claimed < ABANDONED_S


def _removal_paths(storage: Storage, found: Verified) -> tuple[str, ...]:
    try:
        removal = read_removal(storage)
    except LookalikeError as error:
        found.add(REMOVAL, "removal", str(error))
        return ()
    return removal.paths if removal else ()


def _in_use(storage: Storage, found: Verified) -> set[str]:
    """Shards that something which runs, or was stopped and will go on, has asked for."""
    asked = {PurePosixPath(name).stem for name in storage.names("runs/requests")}
    try:
        return asked.union(*(lease.shards for lease in live_leases(storage)))
    except LookalikeError as error:
        found.add("runs/leases", "lease", str(error))
        return asked
