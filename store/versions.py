"""Versions: written once, checked, published by one step, never changed."""

import hashlib
from dataclasses import dataclass

from store.errors import ArtifactError, VersionError
from store.layout import CURRENT, version_file, version_folder
from store.manifest import FileRecord, Manifest, parse_manifest
from store.removal import read_removal
from store.storage import Storage
from store.verified_files import is_verified, note_verified

__all__ = [
    "ABANDONED_S",
    "CLAIM",
    "MANIFEST",
    "PublishedVersion",
    "claimed_numbers",
    "current_number",
    "measure",
    "publish",
    "published_numbers",
    "read_file",
    "read_manifest",
    "read_version",
    "set_current",
]

ABANDONED_S = 86_400.0
"""A number that was claimed this long ago and has no manifest belongs to a publish that died."""

_UNLISTED = 10_000  # numbers that a stale listing may lack; a CURRENT far beyond is no number of a version

CLAIM = "claim"
"""Made exclusively at the start of a publish and never removed: whose build's uuid it holds owns the number."""

MANIFEST = "manifest.json"
"""Made exclusively at the end: with it a version is there."""


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
    if (number := _named_by(data)) is None:
        text = data.decode(errors="replace").strip()
        raise VersionError(f"{storage.uri_of(CURRENT)} holds {text[:20]!r}, wanted a version's number")
    return number


def _named_by(data: bytes) -> int | None:
    """The number in CURRENT's bytes, None where they hold something else."""
    text = data.decode(errors="replace").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0 else None


def published_numbers(storage: Storage) -> list[int]:
    """The numbers of all versions that have a manifest, ascending.

    A listing only says where to look: one that is stale hides no version, because claims are asked for one by one as well.
    """
    return [n for n in sorted(claimed_numbers(storage)) if storage.exists(f"{version_folder(n)}/{MANIFEST}")]


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
    manifest_path = f"{version_folder(number)}/{MANIFEST}"
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
    leaves an unused number and no lock. Files are put in place and read back, then the manifest is made exclusively, then
    CURRENT is swapped only where it still names the parent: of two builds planned on one version, one is published. Called
    again for a build that is published already, it changes nothing. A step that was refused although it had been done,
    because the answer to it was lost and it was sent again, is known by the build's uuid in what stands there.

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
    number = _claim(storage, manifest.build)
    version = PublishedVersion(number=number, manifest=manifest.model_copy(update={"version": number}))
    for name, path in staged.items():
        _place_checked(storage, path, version.path_of(name), manifest.files[name])
    before = _refuse_if_moved(storage, parent)
    _commit(storage, version)
    if not storage.swap(CURRENT, str(number).encode(), expected=before) and not _is_in_line(storage, number):
        storage.remove(version.path_of(MANIFEST))  # the number stays claimed, and names no version
        _refuse_if_moved(storage, parent)
        raise VersionError(f"{storage.uri_of(CURRENT)} changed while it was written; run the build again")
    return version


def set_current(storage: Storage, number: int, *, expected: int | None) -> None:
    """Let CURRENT name another version that is published already.

    Args:
        storage: the store.
        number: of a published version.
        expected: what CURRENT names now; None where it names none or cannot be read.

    Raises:
        VersionError: CURRENT names another version meanwhile, or there is no such version.
    """
    read_version(storage, number)
    before = storage.read(CURRENT) if storage.exists(CURRENT) else None
    names = None if before is None else _named_by(before)
    if names != expected or not storage.swap(CURRENT, str(number).encode(), expected=before):
        raise VersionError(f"{storage.uri_of(CURRENT)} changed meanwhile; look with `lookalike versions` and try again")
    removal = read_removal(storage)  # which a vacuum writes before it asks for CURRENT: one of the two sees the other
    if (removal and number in removal.versions) or not storage.exists(f"{version_folder(number)}/{MANIFEST}"):
        storage.swap(CURRENT, before or b"", expected=str(number).encode())
        raise VersionError(
            f"version {number} is being removed by a vacuum; CURRENT stays as it was; `lookalike vacuum` ends what it began"
        )


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


def _commit(storage: Storage, version: PublishedVersion) -> None:
    """Make the manifest, which makes the version; whose it is, if it stands there already, its build's uuid says."""
    path, data = version.path_of(MANIFEST), version.manifest.to_json()
    parse_manifest(data, where=path)
    if gone := [name for name in version.manifest.files if not storage.exists(version.path_of(name))]:
        raise VersionError(
            f"{', '.join(gone)} of version {version.number} went away while it was published; build again"
        )
    if not storage.create(path, data) and read_manifest(storage, path).build != version.manifest.build:
        raise VersionError(f"{storage.uri_of(path)} was made by another build; run the build again")


def _is_in_line(storage: Storage, number: int) -> bool:
    """Whether CURRENT is this version or comes from it: then the swap was done, and only the answer to it was lost."""
    now = current_number(storage)
    while now is not None and now > number:
        now = read_version(storage, now).manifest.parent
    return now == number


def _claim(storage: Storage, build: str) -> int:
    """A number of this build's own: above all that were ever claimed, for claims are never removed."""
    number = max(claimed_numbers(storage), default=0) + 1
    while not storage.create(claim := f"{version_folder(number)}/{CLAIM}", build.encode()):
        if storage.read(claim) == build.encode():
            break  # made by this very call, whose answer was lost
        number += 1
    return number


def claimed_numbers(storage: Storage) -> set[int]:
    """Every number that was given out: those listed, those up to CURRENT, and those above that are claimed all the same."""
    listed = {int(name) for name in storage.names("versions") if name.isascii() and name.isdigit()}
    current = _named_by(storage.read(CURRENT)) if storage.exists(CURRENT) else None
    numbers = listed | (
        set(range(1, (current or 0) + 1)) if (current or 0) < max(listed, default=0) + _UNLISTED else set()
    )
    above = max(numbers, default=0) + 1
    while storage.exists(f"{version_folder(above)}/{CLAIM}"):
        numbers.add(above)
        above += 1
    return numbers - {0}


def _place_checked(storage: Storage, source: str, target: str, record: FileRecord) -> None:
    storage.copy(source, target)
    if is_verified(storage, target, sha256=record.sha256):  # it is a file that was checked, under another name
        return
    if _is_as_recorded(storage, target, record):
        note_verified(storage, target, sha256=record.sha256)
        return
    storage.remove(target)
    if not _is_as_recorded(storage, source, record):
        raise ArtifactError(
            f"{storage.uri_of(source)} has changed since it was checked; nothing was published, build again"
        )
    raise VersionError(
        f"{storage.uri_of(target)} does not read back as it was written; the disk may be full; nothing was published"
    )


def _is_as_recorded(storage: Storage, path: str, record: FileRecord) -> bool:
    """Whether a file reads back with its size and hash; what came wrong from S3 may come right."""
    return any(measure(storage, path) == (record.bytes, record.sha256) for _ in range(1 if storage.local else 3))


def measure(storage: Storage, path: str) -> tuple[int, str]:
    """A file's size in bytes and its sha256, read anew and piece by piece.

    Raises:
        ArtifactError: the file is missing.
    """
    digest, size = hashlib.sha256(), 0
    for piece in storage.chunks(path):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
