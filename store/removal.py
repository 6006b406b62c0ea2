"""What a vacuum has yet to remove: written down before the first file goes, so that one that was killed can be finished.

`versions/removal.json` stands there from the moment a version is given up until its last file is gone.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from store.errors import ArtifactError, VersionError
from store.layout import version_folder
from store.storage import Storage

__all__ = ["REMOVAL", "Removal", "add_removal", "end_removal", "read_removal", "shard_of_path", "spare"]

REMOVAL = "versions/removal.json"
_PATH = re.compile(
    r"(versions/\d{6,9}/(r\d+/)?[A-Za-z0-9_.-]+|(photos|faces|embeddings)/[0-9a-f]{32}/[0-9a-f]{32}\.parquet)"
)
_ROUNDS = 100


@dataclass(frozen=True)
class Removal:
    """Files that are to go.

    Attributes:
        versions: numbers that are given up.
        paths: of their files and of the shards that nobody else names, in the order in which they go.
        sha256s: of index files that readers may have kept on their machines.
    """

    versions: frozenset[int]
    paths: tuple[str, ...]
    sha256s: tuple[str, ...]

    @property
    def shards(self) -> frozenset[str]:
        """The names of the shards among the files."""
        return frozenset(shard for path in self.paths if (shard := shard_of_path(path)))

    def to_json(self) -> bytes:
        """As it is stored."""
        document = {
            "format": 1,
            "versions": sorted(self.versions),
            "paths": list(self.paths),
            "sha256s": list(self.sha256s),
        }
        return json.dumps(document, indent=0).encode()


def shard_of_path(path: str) -> str | None:
    """The shard that a file belongs to, None for a version's file."""
    return None if path.startswith("versions/") else PurePosixPath(path).stem


def read_removal(storage: Storage) -> Removal | None:
    """What is still to go, None when nothing is.

    Raises:
        ArtifactError: the file says something else; nothing is removed by it.
    """
    return _parsed(storage, storage.read(REMOVAL)) if storage.exists(REMOVAL) else None


def add_removal(storage: Storage, new: Removal) -> Removal:
    """Write down more that is to go, beside what a vacuum that was killed left there."""

    def added(before: Removal | None) -> Removal:
        old = before or Removal(frozenset(), (), ())
        return Removal(
            versions=old.versions | new.versions,
            paths=(*new.paths, *(path for path in old.paths if path not in set(new.paths))),
            sha256s=tuple(sorted({*old.sha256s, *new.sha256s})),
        )

    return _changed(storage, added)


def spare(storage: Storage, *, shards: Iterable[str] = (), versions: Iterable[int] = ()) -> Removal:
    """Take shards or versions off the list: they are used again."""
    kept_shards = frozenset(shards)
    kept_versions = frozenset(versions)
    folders = tuple(f"{version_folder(number)}/" for number in kept_versions)

    def without(before: Removal | None) -> Removal:
        old = before or Removal(frozenset(), (), ())
        kept = (p for p in old.paths if shard_of_path(p) not in kept_shards and not p.startswith(folders))
        return Removal(versions=old.versions - kept_versions, paths=tuple(kept), sha256s=old.sha256s)

    return _changed(storage, without)


def end_removal(storage: Storage) -> None:
    """All of it is gone."""
    storage.remove(REMOVAL)


def _changed(storage: Storage, change: Callable[[Removal | None], Removal]) -> Removal:
    for _ in range(_ROUNDS):
        before = storage.read(REMOVAL) if storage.exists(REMOVAL) else None
        after = change(None if before is None else _parsed(storage, before))
        if storage.swap(REMOVAL, after.to_json(), expected=before):
            return after
    raise VersionError(f"{storage.uri_of(REMOVAL)} changed {_ROUNDS} times while it was written; try again")


def _parsed(storage: Storage, data: bytes) -> Removal:
    try:
        document = json.loads(data)
        known = document["format"] == 1
        versions = frozenset(int(number) for number in document["versions"])
        paths = tuple(str(path) for path in document["paths"])
        sha256s = tuple(str(one) for one in document["sha256s"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(storage) from error
    if not known or not all(_PATH.fullmatch(path) for path in paths):
        raise _unreadable(storage)
    if not all(re.fullmatch("[0-9a-f]{64}", one) for one in sha256s):
        raise _unreadable(storage)
    return Removal(versions=versions, paths=paths, sha256s=sha256s)


def _unreadable(storage: Storage) -> ArtifactError:
    return ArtifactError(
        f"{storage.uri_of(REMOVAL)} is not a list of files in format 1, so nothing is removed by it; remove it yourself, and "
        "`lookalike verify` says what a vacuum left behind"
    )
