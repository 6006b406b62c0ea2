"""Versions: written once, checked, published by one step, never changed."""

import uuid
from dataclasses import dataclass

from store.errors import VersionError
from store.fingerprints import sha256_hex
from store.layout import CURRENT, version_file, version_folder
from store.manifest import FileRecord, Manifest, parse_manifest
from store.storage import Storage

__all__ = [
    "PublishedVersion",
    "current_number",
    "publish",
    "published_numbers",
    "read_file",
    "read_manifest",
    "read_version",
]

_CLAIM = "claim"


@dataclass(frozen=True)
class PublishedVersion:
    """A version as it was published."""

    number: int
    manifest: Manifest

    def path_of(self, name: str) -> str:
        """Where one of its files lies in the store."""
        return version_file(self.number, self.manifest.revision, name)


def current_number(storage: Storage) -> int | None:
    """The published version's number, or None while there is none.

    Raises:
        VersionError: CURRENT holds something else than a number.
    """
    if not storage.exists(CURRENT):
        return None
    return _number(storage, storage.read(CURRENT))


def _number(storage: Storage, data: bytes) -> int:
    text = data.decode(errors="replace").strip()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise VersionError(f"{storage.uri_of(CURRENT)} holds {text[:20]!r}, wanted a version's number")
    return int(text)


def published_numbers(storage: Storage) -> list[int]:
    """The numbers of all versions that have a manifest, ascending."""
    return [n for n in _claimed_numbers(storage) if storage.exists(f"{version_folder(n)}/manifest.json")]


def read_version(storage: Storage, number: int | None = None) -> PublishedVersion:
    """A version, CURRENT when no number is given.

    Raises:
        VersionError: there is none yet, or none of that number; the message says which there are.
    """
    if number is None:
        number = current_number(storage)
        if number is None:
            raise VersionError(
                f"the store {storage.uri} has no version yet: run `lookalike build SOURCE --store {storage.uri}` first"
            )
    manifest_path = f"{version_folder(number)}/manifest.json"
    if number < 1 or not storage.exists(manifest_path):
        there = ", ".join(map(str, published_numbers(storage))) or "none"
        raise VersionError(f"the store {storage.uri} has no version {number}; there is {there}")
    return PublishedVersion(number=number, manifest=read_manifest(storage, manifest_path))


def read_manifest(storage: Storage, path: str) -> Manifest:
    """The manifest at a path of the store."""
    return parse_manifest(storage.read(path), where=storage.uri_of(path))


def read_file(storage: Storage, version: PublishedVersion, name: str) -> bytes:
    """A version's file, checked against the hash in its manifest before anybody parses it."""
    record = version.manifest.files[name]
    return storage.read(version.path_of(name), sha256=record.sha256)


def publish(storage: Storage, *, staged: dict[str, str], manifest: Manifest, parent: int | None) -> PublishedVersion:
    """Make a checked version the current one.

    The number is claimed by a file made exclusively, so that two builds never share a folder and a build that dies
    leaves an unused number and no lock. Files are written and read back, then the manifest, then CURRENT, which is
    swapped only where it still names the parent: of two builds planned on one version, one is published. Called again
    for a build that is published already, it changes nothing. A step that was refused although it had been done, because
    the answer to it was lost and it was sent again, is known by what stands there.

    Args:
        storage: the store.
        staged: path in the store of each file to publish, by its name in the version.
        manifest: complete but for its version's number.
        parent: CURRENT when the build was planned; another build that published meanwhile is not overwritten.

    Raises:
        VersionError: another version was published since the plan, or a file does not read back.
        ArtifactError: a staged file is missing or is not what was checked.
    """
    if (published := _published_already(storage, manifest.build)) is not None:
        return published
    if staged.keys() != manifest.files.keys():
        raise VersionError(f"the files are {sorted(staged)}, the manifest names {sorted(manifest.files)}")
    _refuse_if_moved(storage, parent)
    number = _claim(storage)
    folder = version_folder(number)
    for name, path in staged.items():
        _copy_checked(storage, path, f"{folder}/{name}", manifest.files[name])
    numbered = manifest.model_copy(update={"version": number})
    data = numbered.to_json()
    parse_manifest(data, where=f"{folder}/manifest.json")
    before = _refuse_if_moved(storage, parent)
    path = f"{folder}/manifest.json"
    if not storage.create(path, data) and storage.read(path) != data:
        raise VersionError(f"{storage.uri_of(folder)} got a manifest from somebody else; run the build again")
    if not storage.swap(CURRENT, str(number).encode(), expected=before) and current_number(storage) != number:
        storage.remove(path)  # the number stays claimed, and names no version
        _refuse_if_moved(storage, parent)
        raise VersionError(f"{storage.uri_of(CURRENT)} changed while it was written; run the build again")
    return PublishedVersion(number=number, manifest=numbered)


def _published_already(storage: Storage, build: str) -> PublishedVersion | None:
    """The current version, if it is this build's: the answer to the write that published it may have been lost."""
    if current_number(storage) is None:
        return None
    version = read_version(storage)
    return version if version.manifest.build == build else None


def _refuse_if_moved(storage: Storage, parent: int | None) -> bytes | None:
    """The bytes of CURRENT, which names the parent; None where there is none."""
    data = storage.read(CURRENT) if storage.exists(CURRENT) else None
    now = None if data is None else _number(storage, data)
    if now != parent:
        planned = "an empty store" if parent is None else f"version {parent}"
        raise VersionError(
            f"{'no version' if now is None else f'version {now}'} was published while this build, planned on {planned}, "
            "was running; run the build again, finished shards are kept"
        )
    return data


def _claim(storage: Storage) -> int:
    mark = uuid.uuid4().hex.encode()
    number = max(_claimed_numbers(storage), default=0) + 1
    while not storage.create(f"{version_folder(number)}/{_CLAIM}", mark):
        number += 1
    return number


def _claimed_numbers(storage: Storage) -> list[int]:
    return [int(name) for name in storage.names("versions") if name.isascii() and name.isdigit()]


def _copy_checked(storage: Storage, source: str, target: str, record: FileRecord) -> None:
    storage.write(target, storage.read(source, sha256=record.sha256))
    written = storage.read(target)
    if len(written) != record.bytes or sha256_hex(written) != record.sha256:
        raise VersionError(
            f"{storage.uri_of(target)} does not read back as it was written; the disk may be full; nothing was published"
        )
