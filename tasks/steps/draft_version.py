"""What a version is made of but for its index, and its draft manifest, under the store's runs/, where nobody reads it yet."""

import importlib.metadata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from store.content_hash import table_content_sha256
from store.errors import LookalikeError, VersionError
from store.fingerprints import sha256_hex
from store.layout import build_folder, embeddings_path, faces_path, photos_path
from store.manifest import CHANGES, ChangesRecord, ContractRecord, EncoderRecord, FileRecord, Manifest, ShardRecord
from store.refs import ArtifactRef
from store.schemas import FACES, PHOTOS, STATUSES, VERSION_FACES, VERSION_PHOTOS, from_parquet, to_parquet
from store.storage import Storage
from store.version_files import ADDED_INDEX, FACES_FILE, INDEX_FILE, OF_THE_BASE, PHOTOS_FILE, VersionFiles
from store.versions import read_version
from tasks.steps.contract import Contract
from tasks.steps.fill_index import BuiltIndex
from tasks.steps.held_out_truth import TRUTH_FILE, HeldOut, truth_parquet
from tasks.steps.plan_build import BuildPlan
from tasks.steps.resolve_encoder import EncoderRef

__all__ = [
    "DRAFT",
    "VersionContents",
    "VersionTables",
    "encode_tables",
    "files_of_draft",
    "read_tables",
    "write_draft",
    "write_tables",
]

DRAFT = "draft.json"
"""The manifest of a version that is not checked yet, beside its files."""

_LIBRARIES = ("faiss-cpu", "numpy", "onnxruntime", "openvino", "pillow", "pillow-heif", "prefect", "pyarrow", "torch")


def files_of_draft(storage: Storage, folder: str, manifest: Manifest) -> VersionFiles:
    """The files of a draft; those of a base lie with the version before.

    Raises:
        VersionError: that version is not what it was: somebody was forgotten meanwhile.
    """
    paths = {name: f"{folder}/{name}" for name in manifest.files}
    if manifest.changes is not None:
        parent = read_version(storage, manifest.parent)
        for name in OF_THE_BASE:
            if parent.manifest.files[name] != manifest.files[name]:
                raise VersionError(
                    f"version {parent.number} was written anew while this build was running; run the build again"
                )
            paths[name] = parent.path_of(name)
    return VersionFiles(storage, manifest, paths, "the draft")


@dataclass(frozen=True)
class VersionContents:
    """What a version holds, whatever its files.

    Attributes:
        plan: every shard in it is committed and embedded.
        contract: of the shards.
        encoder: of the embeddings.
        before: manifest of the version before; None where there is none, or one of another contract.
        counts: photos by status, those among them that there are no rows of.
        faces: how many.
        shards: names of those that its photos stand in.
        content_sha256: of both tables.
    """

    plan: BuildPlan
    contract: Contract
    encoder: EncoderRef
    before: Manifest | None
    counts: dict[str, int]
    faces: int
    shards: frozenset[str]
    content_sha256: str


@dataclass(frozen=True)
class VersionTables:
    """A version without its index.

    Attributes:
        plan: every shard in it is committed and embedded.
        contract: of the shards.
        encoder: of the embeddings.
        before: manifest of the version before; None where there is none, or one of another contract.
        photos: VERSION_PHOTOS.
        faces: VERSION_FACES.

    Raises:
        LookalikeError: photos or faces of the plan are not in the tables; the message has both numbers.
    """

    plan: BuildPlan
    contract: Contract
    encoder: EncoderRef
    before: Manifest | None
    photos: pa.Table
    faces: pa.Table

    def __post_init__(self) -> None:
        """See that nobody was lost."""
        _check_sums(self.plan, self.photos, self.faces)

    @cached_property
    def contents(self) -> VersionContents:
        """What they hold."""
        return VersionContents(
            self.plan,
            self.contract,
            self.encoder,
            self.before,
            counts=_counts(self.plan, self.photos),
            faces=self.faces.num_rows,
            shards=frozenset(self.photos["shard"].unique().to_pylist()),
            content_sha256=table_content_sha256(self.photos, self.faces["face_id"].to_numpy()),
        )


def encode_tables(tables: VersionTables) -> dict[str, bytes]:
    """Both tables as files, by name; and what they hold is worked out. No file is touched: it may be done beside other work."""
    _ = tables.contents
    return {
        PHOTOS_FILE: to_parquet(tables.photos, VERSION_PHOTOS),
        FACES_FILE: to_parquet(tables.faces, VERSION_FACES),
    }


def write_tables(storage: Storage, encoded: dict[str, bytes], build: str) -> dict[str, FileRecord]:
    """Write encoded tables into the build's folder; returns what a manifest says of them."""
    for name, data in encoded.items():
        storage.write(f"{build_folder(build)}/{name}", data)
    return {name: _record_of(data) for name, data in encoded.items()}


def read_tables(storage: Storage, build: str, files: dict[str, FileRecord]) -> tuple[pa.Table, pa.Table]:
    """Photos and faces, as they were written into the build's folder.

    Raises:
        ArtifactError: one is not what was written; the message names it.
    """
    schemas = {PHOTOS_FILE: VERSION_PHOTOS, FACES_FILE: VERSION_FACES}
    photos, faces = (
        from_parquet(storage.read(path, sha256=files[name].sha256), schema, where=storage.uri_of(path))
        for name, schema in schemas.items()
        for path in [f"{build_folder(build)}/{name}"]
    )
    return photos, faces


def write_draft(
    storage: Storage,
    contents: VersionContents,
    built: BuiltIndex,
    held: tuple[HeldOut, ...],
    *,
    build: str,
    files: dict[str, FileRecord],
    changes: ChangesRecord | None = None,
) -> ArtifactRef:
    """Put an index into the build's folder, where the tables stand, and write the draft manifest.

    Args:
        storage: the store.
        contents: of the version.
        built: its index, whose file is gone afterwards from where it was.
        held: queries with their exact nearest, where the index is approximate.
        build: the version's uuid.
        files: what was written of the tables.
        changes: where it is kept as changes to the version before.

    Returns:
        The draft manifest; its rows are the faces in the index.
    """
    folder = build_folder(build)
    written = FileRecord(bytes=built.written.bytes, sha256=built.written.sha256)
    own = {INDEX_FILE: written} if built.base is None else {INDEX_FILE: built.base, ADDED_INDEX: written}
    files = {**own, **files}
    if held:
        truth = truth_parquet(held, dimension=contents.encoder.dimension)
        storage.write(f"{folder}/{TRUTH_FILE}", truth)
        files[TRUTH_FILE] = _record_of(truth)
    shards = _shard_records(storage, contents)
    manifest = _manifest(contents, shards, built, build=build, files=files, changes=changes)
    storage.adopt(f"{folder}/{INDEX_FILE if built.base is None else ADDED_INDEX}", built.path)
    draft = manifest.to_json()
    storage.write(f"{folder}/{DRAFT}", draft)
    return ArtifactRef(uri=storage.uri_of(f"{folder}/{DRAFT}"), sha256=sha256_hex(draft), rows=manifest.faces)


def _record_of(data: bytes) -> FileRecord:
    return FileRecord(bytes=len(data), sha256=sha256_hex(data))


def _counts(plan: BuildPlan, photos: pa.Table) -> dict[str, int]:
    """Photos by status; forgotten are those the plan passed over, and those that shards hold no row of any more."""
    counted = {str(c["values"]): int(c["counts"]) for c in photos["status"].value_counts().to_pylist()}
    if unknown := set(counted) - set(STATUSES):
        raise LookalikeError(f"photos have statuses nobody knows: {sorted(unknown)}, wanted {STATUSES}")
    counts = {status: counted.get(status, 0) for status in STATUSES}
    return counts | {"forgotten": plan.forgotten + plan.table.rows - photos.num_rows}


def _check_sums(plan: BuildPlan, photos: pa.Table, faces: pa.Table) -> None:
    counts = _counts(plan, photos)
    if sum(counts.values()) != plan.table.rows + plan.forgotten:
        raise LookalikeError(
            f"the version lost photos: {plan.table.rows + plan.forgotten} planned, {sum(counts.values())} counted"
        )
    indexed = photos.filter(pc.equal(photos["status"], "indexed"))
    found = pc.sum(indexed["num_faces"]).as_py() or 0
    if found != faces.num_rows:
        raise LookalikeError(
            f"the version lost faces: {found} were found in its photos, {faces.num_rows} are in its shards"
        )


def _manifest(
    contents: VersionContents,
    shards: list[ShardRecord],
    built: BuiltIndex,
    *,
    build: str,
    files: dict[str, FileRecord],
    changes: ChangesRecord | None,
) -> Manifest:
    plan, contract, encoder = contents.plan, contents.contract, contents.encoder
    return Manifest(
        format=1,
        version=1,  # the number is given when it is published
        parent=plan.parent,
        build=build,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sources=list(plan.sources),
        contract=ContractRecord(id=contract.id, settings=_as_json(contract.settings)),
        encoder=EncoderRecord(id=encoder.id, name=encoder.name, dimension=encoder.dimension),
        shards=shards,
        tombstones=[],
        index=built.record(plan.budget),
        files=files,
        counts=contents.counts,
        photos=sum(contents.counts.values()),
        faces=contents.faces,
        metrics=None,
        gate=None,
        calibration=None,
        content_sha256=contents.content_sha256,
        labels="folder" if plan.labelled_sources else None,
        labelled_sources=list(plan.labelled_sources),
        changes=changes,
        requires=[] if changes is None else [CHANGES],
        library_versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
    )


def _shard_records(storage: Storage, contents: VersionContents) -> list[ShardRecord]:
    """What the manifest says of each shard; what the version before says of one is taken over, for no shard ever changes."""
    before, contract, encoder = contents.before, contents.contract.id, contents.encoder
    known = {shard.name: shard for shard in before.shards} if before else {}
    same_encoder = before is not None and before.encoder.id == encoder.id
    records = []
    for name in sorted(contents.shards):
        record = known.get(name) or _shard_record(storage, name, contract=contract, encoder=encoder)
        if name in known and not same_encoder:
            embeddings = sha256_hex(storage.read(embeddings_path(encoder.id, name)))
            record = record.model_copy(update={"embeddings_sha256": embeddings})
        records.append(record)
    return records


def _shard_record(storage: Storage, shard: str, *, contract: str, encoder: EncoderRef) -> ShardRecord:
    paths = (photos_path(contract, shard), faces_path(contract, shard), embeddings_path(encoder.id, shard))
    photos, faces, embeddings = (storage.read(path) for path in paths)
    return ShardRecord(
        name=shard,
        photos=from_parquet(photos, PHOTOS, where=storage.uri_of(paths[0]), columns=["uri"]).num_rows,
        faces=from_parquet(faces, FACES, where=storage.uri_of(paths[1]), columns=["face_id"]).num_rows,
        photos_sha256=sha256_hex(photos),
        faces_sha256=sha256_hex(faces),
        embeddings_sha256=sha256_hex(embeddings),
    )


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples become lists."""
    return {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
