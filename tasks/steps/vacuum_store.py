"""Remove old versions, and the shards that nothing else stands on.

What goes is computed from manifests alone, never from a listing, and is written down before the first file is removed. Versions
that stay lose nothing whenever this is killed, and another run ends what was begun.
"""

import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from store.errors import ManifestError, VersionError
from store.layout import (
    builds_folder,
    coding_folder,
    embeddings_path,
    faces_path,
    open_store,
    photos_path,
    version_folder,
)
from store.leases import VACUUM, hold_lease, live_leases, storage_now_s
from store.local_files import STAGING
from store.removal import Removal, add_removal, end_removal, read_removal, shard_of_path, spare
from store.storage import Storage
from store.verified_files import purge_files
from store.version_files import ADDED_INDEX, INDEX_FILE, OF_CHANGES, OF_THE_BASE
from store.versions import (
    ABANDONED_S,
    CLAIM,
    MANIFEST,
    PublishedVersion,
    claimed_numbers,
    current_number,
    published_numbers,
    read_version,
)

__all__ = ["Vacuumed", "vacuum_store"]

_DAY_S = 86_400.0
_UPLOAD = timedelta(days=1)
"""No upload takes so long: its parts belong to a process that is gone."""

_OF_A_PUBLISH = (*OF_THE_BASE, *OF_CHANGES, "truth.parquet", "report.html")


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum did, or would do.

    Attributes:
        removed: numbers of the versions that went.
        kept: numbers of those that are left.
        shards: how many went with them.
        spared: shards that would have gone and are held by something that runs.
        files: removed in all.
        dry_run: whether all of it stayed.
    """

    removed: tuple[int, ...]
    kept: tuple[int, ...]
    shards: int
    spared: int
    files: int
    dry_run: bool

    def as_json(self) -> dict[str, Any]:
        """What the command prints."""
        return asdict(self)


def vacuum_store(store: str, *, keep: int = 3, older_than_days: float = 0.0, dry_run: bool = False) -> Vacuumed:
    """Remove versions that are neither among the newest nor young enough, and what only they stand on.

    CURRENT and its ancestors count as the newest too: `keep` of them stay, as do the `keep` highest numbers.

    Args:
        store: its uri.
        keep: how many versions stay, whatever their age; at least 1.
        older_than_days: those younger than this stay as well.
        dry_run: nothing is removed.

    Raises:
        VersionError: keep or the age is out of range, or CURRENT cannot be read.
        ManifestError: a manifest cannot be read: what it stands on is not known, so nothing is removed.
    """
    if keep < 1 or older_than_days < 0:
        raise VersionError(
            f"keep is {keep} and the age {older_than_days:g} days: wanted at least 1, and no less than 0"
        )
    storage = open_store(store)
    with hold_lease(storage, f"{VACUUM}{uuid.uuid4()}", shards=()):
        there = _versions(storage)
        going = _expired(storage, there, keep=keep, older_than_days=older_than_days)
        wanted = _removal(there, going, encoders=storage.names("embeddings"))
        if dry_run:
            return _told(storage, wanted, _in_use(storage, wanted), dry_run=True)
        left_over = read_removal(storage)
        if wanted.paths or left_over:
            add_removal(storage, wanted)
        done = _carry_out(storage)
        _sweep_abandoned(storage)
        _sweep_staging(storage)
        _sweep_drafts(storage)
        storage.abort_leftover_uploads(older_than=_UPLOAD)
        return done


def _versions(storage: Storage) -> dict[int, PublishedVersion]:
    versions = {}
    for number in published_numbers(storage):
        try:
            versions[number] = read_version(storage, number)
        except ManifestError as error:
            raise ManifestError(
                f"nothing was removed, for it is not known what version {number} stands on: {error}"
            ) from error
    return versions


def _expired(
    storage: Storage, there: dict[int, PublishedVersion], *, keep: int, older_than_days: float
) -> dict[int, PublishedVersion]:
    newest = set(sorted(there)[-keep:])
    number = current_number(storage)
    for _ in range(keep):
        if number not in there:
            break
        newest.add(number)
        number = there[number].manifest.parent
    now = storage_now_s(storage)
    expired = {}
    for number, version in there.items():
        written = storage.modified_s(version.path_of(MANIFEST))
        if number not in newest and written is not None and now - written >= older_than_days * _DAY_S:
            expired[number] = version
    return expired


def _removal(
    there: dict[int, PublishedVersion], going: dict[int, PublishedVersion], *, encoders: Iterable[str]
) -> Removal:
    """The versions' files, manifests first, then the shards that no other version names, each photos first.

    With a shard go its embeddings by every encoder, those too that only an evaluation made.
    """
    kept = _named(version for number, version in there.items() if number not in going)
    paths: list[str] = []
    for version in going.values():
        paths += [version.path_of(name) for name in (MANIFEST, *sorted(version.manifest.files))]
        if version.manifest.revision:
            paths.append(f"{version_folder(version.number)}/r{version.manifest.revision}")
    gone = [path for version in going.values() for path in _shard_paths(version) if path not in kept]
    shards = [shard for path in gone if path.startswith("photos/") and (shard := shard_of_path(path))]
    gone += [embeddings_path(encoder, shard) for encoder in encoders for shard in shards]
    sha256s = {sha256 for version in going.values() for sha256 in _index_hashes(version)}
    sha256s -= {sha256 for number, one in there.items() if number not in going for sha256 in _index_hashes(one)}
    return Removal(versions=frozenset(going), paths=tuple(dict.fromkeys(paths + gone)), sha256s=tuple(sorted(sha256s)))


def _index_hashes(version: PublishedVersion) -> set[str]:
    """Of the files that readers keep on their machines."""
    files = version.manifest.files
    return {files[name].sha256 for name in (INDEX_FILE, ADDED_INDEX) if name in files}


def _named(versions: Iterable[PublishedVersion]) -> set[str]:
    return {path for version in versions for path in _shard_paths(version)}


def _shard_paths(version: PublishedVersion) -> list[str]:
    """Photos first: with them a shard is there, and without them the rest of it is never used."""
    contract, encoder = version.manifest.contract.id, version.manifest.encoder.id
    return [
        path
        for shard in version.manifest.shards
        for path in (
            photos_path(contract, shard.name),
            faces_path(contract, shard.name),
            embeddings_path(encoder, shard.name),
        )
    ]


def _carry_out(storage: Storage) -> Vacuumed:
    """Remove what is written down, but what is used again by now."""
    removal = read_removal(storage)
    if removal is None:
        return _told(storage, Removal(frozenset(), (), ()), set(), dry_run=False)
    if (current := current_number(storage)) in removal.versions and current is not None:
        removal = spare(storage, versions=[current])
    in_use = _in_use(storage, removal)
    spared: set[str] = set()
    for path in removal.paths:
        shard = shard_of_path(path)
        if path in in_use or shard in spared:
            continue
        if path.startswith("photos/") and not _is_still_going(storage, path):
            spared.add(str(shard))
            continue
        storage.remove(path)
    purge_files(removal.sha256s)
    told = _told(storage, removal, in_use, dry_run=False)
    end_removal(storage)
    return told


def _in_use(storage: Storage, removal: Removal) -> set[str]:
    """The files among those to go that a version or a running build stands on; leases are read first: a build that ends meanwhile has published."""
    leased = {shard for lease in live_leases(storage) for shard in lease.shards}
    kept = _named(version for number, version in _versions(storage).items() if number not in removal.versions)
    return {path for path in removal.paths if path in kept or shard_of_path(path) in leased}


def _is_still_going(storage: Storage, path: str) -> bool:
    """Whether nobody took the shard off the list, which a build may do where this process seemed dead."""
    removal = read_removal(storage)
    return removal is not None and path in removal.paths


def _told(storage: Storage, removal: Removal, in_use: set[str], *, dry_run: bool) -> Vacuumed:
    gone = [path for path in removal.paths if path not in in_use]
    return Vacuumed(
        removed=tuple(sorted(removal.versions)),
        kept=tuple(n for n in published_numbers(storage) if n not in removal.versions),
        shards=len({shard for path in gone if (shard := shard_of_path(path))}),
        spared=len({shard for path in in_use if (shard := shard_of_path(path))}),
        files=sum(not _is_folder(path) for path in gone),
        dry_run=dry_run,
    )


def _is_folder(path: str) -> bool:
    """Whether it is a revision's folder, which goes when its files are gone."""
    return path.startswith("versions/") and path.rsplit("/", 1)[-1][1:].isdigit()


def _sweep_abandoned(storage: Storage) -> None:
    """Remove what a publish that died a day ago or more left under a number that no version ever got; the claim stays."""
    now = storage_now_s(storage)
    for number in sorted(claimed_numbers(storage) - set(published_numbers(storage))):
        folder = version_folder(number)
        claimed = storage.modified_s(f"{folder}/{CLAIM}")
        if claimed is not None and now - claimed >= ABANDONED_S and not storage.exists(f"{folder}/{MANIFEST}"):
            for name in _OF_A_PUBLISH:
                storage.remove(f"{folder}/{name}")


def _sweep_staging(storage: Storage) -> None:
    """Remove what a process that died a day ago or more left on its way into the store: files, and rooms of indexes being made."""
    now = storage_now_s(storage)
    for name in storage.names(STAGING):
        written = storage.modified_s(f"{STAGING}/{name}")
        if written is not None and now - written >= ABANDONED_S:
            storage.remove(f"{STAGING}/{name}")


def _sweep_drafts(storage: Storage) -> None:
    """Remove what builds that died a day ago or more left of versions that never came to be: drafts, and coded faces.

    While any build runs all of it stays: one that codes for days reads what it wrote at first.
    """
    if any(not lease.owner.startswith(VACUUM) for lease in live_leases(storage)):
        return
    now = storage_now_s(storage)
    for place in (builds_folder(), coding_folder()):
        for name in storage.names(place):
            folder = f"{place}/{name}"
            inside = [f"{folder}/{one}" for one in storage.names(folder)]
            written = max((storage.modified_s(path) or now for path in inside or [folder]), default=now)
            if now - written >= ABANDONED_S:
                storage.remove(folder)
