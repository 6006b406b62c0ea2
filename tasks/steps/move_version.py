"""Move a version from one store to another as a single file."""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from store.archive import ArchiveError, Member, read_members, write_members
from store.encoders import read_card
from store.errors import ArtifactError, ManifestError, VersionError
from store.forgotten import read_forgotten
from store.layout import embeddings_path, encoder_folder, faces_path, open_store, photos_path, version_folder
from store.leases import hold_lease
from store.manifest import Manifest, parse_manifest
from store.storage import Storage
from store.version_files import files_of
from store.versions import CLAIM, MANIFEST, PublishedVersion, current_number, measure, publish, read_version
from tasks.steps.verify_store import verify_store

__all__ = ["export_version", "import_version"]

_WEIGHTS = ("weights.safetensors", "model.onnx")
_MOST_MANIFEST_BYTES = 256 * 2**20
_MOST_CARD_BYTES = 2**20


def export_version(number: int, file: Path, *, store: str) -> int:
    """Write a version and all that it stands on into one file, every hash checked; returns the bytes written.

    Args:
        number: the version's.
        file: where it goes; it appears when it is whole.
        store: its uri.

    Raises:
        VersionError: there is no such version, or the file exists already.
        ArtifactError: a file of the version is missing, or is not what was published.
    """
    if file.exists():
        raise VersionError(f"{file} exists already: give another name, or remove it")
    storage = open_store(store)
    version = read_version(storage, number)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        shards = [shard.name for shard in version.manifest.shards]
        with hold_lease(storage, f"export-{uuid.uuid4()}", shards=shards), part.open("xb") as out:
            written = write_members(out, storage, _exported(storage, version))
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except OSError as error:
        raise VersionError(
            f"{file} cannot be written ({error.strerror or error}): make room or give another name"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return written


def import_version(file: Path, *, store: str) -> int:
    """Publish the version in a file under the store's next number, as the current one; returns the number.

    The file is unpacked into a small store of its own and verified there, every hash and count, before anything of it is seen.

    Args:
        file: that `export_version` wrote, or anybody.
        store: its uri; made when it is missing.

    Raises:
        ArchiveError: the file is no version's archive, or what it holds does not verify.
        VersionError: the file holds somebody who was forgotten here, or a shard that this store has with other bytes.
    """
    if not file.is_file():
        raise ArchiveError(f"{file} does not exist: give a file that `lookalike export` wrote")
    storage = open_store(store, create=True)
    with _folder_beside(storage) as folder:
        unpacked = Storage(folder)
        with file.open("rb") as opened:
            number = _unpack(opened, unpacked, where=str(file))
        if problems := verify_store(unpacked.uri, version=number).problems:
            raise ArchiveError(
                f"{file} does not verify: {problems[0].path}: {problems[0].sentence}; nothing was imported"
            )
        version = read_version(unpacked, number)
        _refuse_forgotten(storage, unpacked, version)
        shards = [shard.name for shard in version.manifest.shards]
        with hold_lease(storage, f"import-{uuid.uuid4()}", shards=shards):
            return _take_in(storage, unpacked, version)


# Out


def _exported(storage: Storage, version: PublishedVersion) -> Iterator[tuple[str, str, int]]:
    """Name, path and size of each file; the manifest, as that of revision 0, first."""
    manifest = version.manifest.model_copy(update={"revision": 0})
    here = f"runs/exports/{uuid.uuid4()}.json"
    storage.write(here, manifest.to_json())
    try:
        yield f"{version_folder(version.number)}/{MANIFEST}", here, len(manifest.to_json())
    finally:
        storage.remove(here)
    for name, record in manifest.files.items():
        yield f"{version_folder(version.number)}/{name}", *_whole(storage, version.path_of(name), record.sha256)
    for path, sha256 in _shard_files(manifest):
        yield path, *_whole(storage, path, sha256)
    folder, card = encoder_folder(manifest.encoder.id), read_card(storage, manifest.encoder.id)
    for path in (f"{folder}/card.json", *(f"{folder}/{name}" for name in _WEIGHTS)):
        if storage.exists(path):
            yield path, *_whole(storage, path, None if path.endswith(".json") else card["sha256"])


def _whole(storage: Storage, path: str, sha256: str | None) -> tuple[str, int]:
    size, got = measure(storage, path)
    if sha256 is not None and got != sha256:
        raise ArtifactError(f"{storage.uri_of(path)} has changed: its sha256 is {got[:12]}…; it is not exported")
    return path, size


def _shard_files(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Path and sha256 of each shard's files, photos last: they commit it."""
    for shard in manifest.shards:
        yield faces_path(manifest.contract.id, shard.name), shard.faces_sha256
        yield embeddings_path(manifest.encoder.id, shard.name), shard.embeddings_sha256
        yield photos_path(manifest.contract.id, shard.name), shard.photos_sha256


# In


@contextmanager
def _folder_beside(storage: Storage) -> Iterator[Path]:
    """A folder to unpack into, in the store itself where it is one of this machine's."""
    local = storage.local_path("runs/imports")
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="lookalike-", dir=local))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(file: BinaryIO, unpacked: Storage, *, where: str) -> int:
    """Write the members that the manifest names where they belong, each checked; returns the version's number."""
    members = read_members(file, where=where)
    first = next(members, None)
    if first is None or not first.name.endswith(f"/{MANIFEST}") or first.size > _MOST_MANIFEST_BYTES:
        raise ArchiveError(f"{where} does not begin with a manifest; nothing was imported")
    try:
        manifest = parse_manifest(b"".join(first.pieces), where=f"{where}: {first.name}")
    except ManifestError as error:
        raise ArchiveError(f"{error}; nothing was imported") from error
    number = manifest.version
    if first.name != f"{version_folder(number)}/{MANIFEST}" or manifest.revision:
        raise ArchiveError(f"{where} holds {first.name}, which says it is version {number}; nothing was imported")
    wanted: dict[str, str | None] = dict(_shard_files(manifest))
    wanted |= {f"{version_folder(number)}/{name}": record.sha256 for name, record in manifest.files.items()}
    folder = encoder_folder(manifest.encoder.id)
    wanted |= {
        f"{folder}/{name}": None for name in ("card.json", *_WEIGHTS)
    }  # verified by the card, and the card by its id
    for member in members:
        if member.name not in wanted:
            raise ArchiveError(f"{where} holds {member.name}, which its manifest does not name; nothing was imported")
        _refuse_size(member, manifest, where=where)
        _write(member, unpacked, sha256=wanted.pop(member.name), where=where)
    if missing := sorted(name for name in wanted if not name.endswith(_WEIGHTS)):
        raise ArchiveError(f"{where} lacks {missing[0]}; nothing was imported")
    unpacked.write(f"{version_folder(number)}/{CLAIM}", manifest.build.encode())
    unpacked.write(f"{version_folder(number)}/{MANIFEST}", manifest.to_json())
    return number


def _refuse_size(member: Member, manifest: Manifest, *, where: str) -> None:
    record = manifest.files.get(member.name.rsplit("/", 1)[-1]) if member.name.startswith("versions/") else None
    most = _MOST_CARD_BYTES if member.name.endswith("/card.json") else None
    if (record is not None and member.size != record.bytes) or (most is not None and member.size > most):
        wanted = f"{record.bytes}" if record is not None else f"at most {most}"
        raise ArchiveError(f"{where} holds {member.name} of {member.size} bytes, wanted {wanted}; nothing was imported")


def _write(member: Member, unpacked: Storage, *, sha256: str | None, where: str) -> None:
    path = unpacked.local_path(member.name)
    assert path is not None  # noqa: S101
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as out:
        for piece in member.pieces:
            out.write(piece)
            digest.update(piece)
        out.flush()
        os.fsync(out.fileno())
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ArchiveError(f"{where}: {member.name} is not what the manifest says; nothing was imported")


def _refuse_forgotten(storage: Storage, unpacked: Storage, version: PublishedVersion) -> None:
    forgotten = read_forgotten(storage)
    if not forgotten:
        return
    files, found = files_of(unpacked, version), 0
    for name in files.raw_tables():
        table = files.table(name)
        found += sum(one is not None and forgotten.has("photo", one) for one in table["photo_sha256"].to_pylist())
        if "face_id" in table.column_names:
            found += sum(forgotten.has("face", str(identity)) for identity in table["face_id"].to_pylist())
    if found:
        raise VersionError(f"the archive holds {found} photos or faces that were forgotten here; nothing was imported")


def _take_in(storage: Storage, unpacked: Storage, version: PublishedVersion) -> int:
    """Shards and encoder first, which nobody sees before the version is published."""
    manifest = version.manifest
    for path, sha256 in _shard_files(manifest):
        if storage.exists(path) and measure(storage, path)[1] != sha256:
            raise VersionError(
                f"{storage.uri_of(path)} is in this store already, with other bytes than in the archive; import it into a "
                "store of its own"
            )
    folder = encoder_folder(manifest.encoder.id)
    encoder = [f"{folder}/{name}" for name in (*_WEIGHTS, "card.json") if unpacked.exists(f"{folder}/{name}")]
    has_encoder = storage.exists(f"{folder}/card.json")
    for path in (*(path for path, _ in _shard_files(manifest)), *(() if has_encoder else encoder)):
        if not storage.exists(path):
            storage.upload(path, Path(f"{unpacked.local_path(path)}"))
    build, parent = str(uuid.uuid4()), current_number(storage)
    staged = {name: f"runs/builds/{build}/{name}" for name in manifest.files}
    for name, path in staged.items():
        storage.upload(path, Path(f"{unpacked.local_path(version.path_of(name))}"))
    try:
        own = manifest.model_copy(update={"build": build, "parent": parent})
        return publish(storage, staged=staged, manifest=own, parent=parent).number
    finally:
        storage.remove(f"runs/builds/{build}")
