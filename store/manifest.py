"""The manifest: what a version is, written last and never changed.

`problems_of_manifest` returns every problem at once, `parse_manifest` returns a manifest or raises with all of them.
A reader ignores keys it does not know, and refuses a format or an entry of `requires` that it does not know.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

from store.errors import ManifestError
from store.fingerprints import canonical_json, sha256_hex
from store.schemas import FORMAT, STATUSES

__all__ = [
    "CHANGES",
    "ChangesRecord",
    "ContractRecord",
    "EncoderRecord",
    "FileRecord",
    "IndexRecord",
    "Manifest",
    "Problem",
    "ShardRecord",
    "TrainingRecord",
    "parse_manifest",
    "problems_of_manifest",
]

CHANGES = "changes"
"""In `requires` of a version that is kept as changes to another: who reads its three files alone reads that other one."""

_OWN_HASH = "self_sha256"
_ALWAYS = ("index.faiss", "faces.parquet", "photos.parquet")
_OF_CHANGES = ("added_index.faiss", "added_faces.parquet", "added_photos.parquet", "left.parquet")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hash32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a document.

    Attributes:
        path: where in it, keys joined by dots.
        sentence: what is wrong, what was got and wanted.
        kind: a short word a program can act on.
    """

    path: str
    sentence: str
    kind: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class FileRecord(_Record):
    """A file of the version: its size in bytes and its hash."""

    bytes: Count
    sha256: Sha256


class ShardRecord(_Record):
    """A shard that the version stands on: rows and hashes of its three files."""

    name: Hash32
    photos: Count
    faces: Count
    photos_sha256: Sha256
    faces_sha256: Sha256
    embeddings_sha256: Sha256


class ContractRecord(_Record):
    """The detector's contract: its id and the settings it was hashed from."""

    id: Hash32
    settings: dict[str, Any]


class EncoderRecord(_Record):
    """The encoder that embedded every face of the version."""

    id: Hash32
    name: str | None = None
    dimension: Annotated[int, Field(ge=1)]


class TrainingRecord(_Record):
    """What an approximate index learnt from: faces, how many changed since, how uneven its lists and how far off its codes were, why.

    `misfit_now` is how far off the codes are now; as then where it is missing.
    """

    faces: Count
    changed: Count
    unevenness: float | None = None
    misfit: float
    misfit_now: float | None = None
    recall_at_10: float | None = None
    why: str


class IndexRecord(_Record):
    """The index: what it is, why it was chosen, what it was allowed, what else was measured, how it came to be."""

    key: str
    metric: Literal["inner_product"]
    parameters: dict[str, Any]
    why: str
    change: Literal["rebuilt", "updated"]
    bytes: Count
    sha256: Sha256
    budget: dict[str, Any] | None = None
    measured: list[dict[str, Any]] = []
    trained: TrainingRecord | None = None


class ChangesRecord(_Record):
    """What a version kept as changes has of its own.

    `index.faiss`, `faces.parquet` and `photos.parquet` are those of version `base`, byte for byte; `left.parquet` names their rows
    that count no more, and `added_*` hold those that came. Rows that are told of anew are in both numbers.
    """

    base: Annotated[int, Field(ge=1)]
    photos_added: Count
    photos_left: Count
    faces_added: Count
    faces_left: Count
    vectors_added: Count
    vectors_left: Count


class Manifest(_Record):
    """What a version is. `metrics`, `gate` and `calibration` are null or say what was measured.

    `revision` is 0 as published, and raised where somebody was forgotten: the one change a published version may see.
    """

    format: Literal[1]
    version: Annotated[int, Field(ge=1)]
    revision: Count = 0
    parent: Annotated[int, Field(ge=1)] | None
    build: str
    created_at: str
    sources: list[str]
    contract: ContractRecord
    encoder: EncoderRecord
    shards: list[ShardRecord]
    tombstones: list[str]
    index: IndexRecord
    files: dict[str, FileRecord]
    counts: dict[str, Count]
    photos: Count
    faces: Count
    metrics: dict[str, Any] | None
    gate: dict[str, Any] | None
    calibration: dict[str, Any] | None
    content_sha256: Sha256
    labels: Literal["folder"] | None = None
    labelled_sources: list[str] = []
    changes: ChangesRecord | None = None
    requires: list[str]
    library_versions: dict[str, str]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        told = {name: getattr(self, name) for name in ("requires", "counts", "photos", "created_at")}
        told |= {name: getattr(self, name) and getattr(self, name).model_dump() for name in ("index", "changes")}
        told["files"] = {name: record.model_dump() for name, record in self.files.items()}
        if problems := list(_contradictions(told)):
            raise ValueError("; ".join(f"{p.path}: {p.sentence}" for p in problems))
        return self

    def to_json(self) -> bytes:
        """The manifest as it is stored: indented JSON, a line feed at its end, and among its keys the hash of all the others."""
        document = self.model_dump(mode="json")
        document[_OWN_HASH] = _hash_of(document)
        return to_json(document, indent=1) + b"\n"


def problems_of_manifest(data: bytes) -> list[Problem]:
    """Every problem of a manifest's bytes; none if it is a manifest of this format."""
    return _read(data)[1]


def _read(data: bytes) -> tuple[Manifest | None, list[Problem]]:
    """The manifest, or every problem of it."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return None, [Problem("", f"not JSON: {error}", "json")]
    if isinstance(document, dict) and document.get("format") != FORMAT:
        sentence = f"got format {document.get('format')!r}, this reader knows format {FORMAT}: use a newer lookalike"
        return None, [Problem("format", sentence, "format")]
    if isinstance(document, dict) and _OWN_HASH in document and document[_OWN_HASH] != (got := _hash_of(document)):
        return None, [
            Problem(_OWN_HASH, f"it has changed since it was written: its content hashes to {got[:12]}…", "hash")
        ]
    try:
        return Manifest.model_validate_json(data), []
    except ValidationError as error:
        fields = [_problem(dict(e)) for e in error.errors() if e["loc"] or e["type"] != "value_error"]
        return None, fields + (list(_contradictions(document)) if isinstance(document, dict) else [])


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """The manifest in the bytes.

    Raises:
        ManifestError: it cannot be read; the message says where and names every problem.
    """
    manifest, problems = _read(data)
    if manifest is None:
        listed = "; ".join(f"{p.path}: {p.sentence}" if p.path else p.sentence for p in problems)
        raise ManifestError(f"{where} is not a manifest of format {FORMAT}: {listed}")
    return manifest


def _hash_of(document: dict[str, Any]) -> str:
    try:
        return sha256_hex(canonical_json({key: value for key, value in document.items() if key != _OWN_HASH}))
    except ValueError:  # not a number, which Python reads and JSON does not know
        return "nothing"


def _contradictions(document: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong though every field by itself may be right; fields of a wrong type are passed over."""
    requires, counts, photos = document.get("requires"), document.get("counts"), document.get("photos")
    files, index, created_at = document.get("files"), document.get("index"), document.get("created_at")
    if isinstance(requires, list) and (unknown_needs := [one for one in requires if one != CHANGES]):
        yield Problem("requires", f"this reader knows none of {unknown_needs}; a newer lookalike is needed", "requires")
    as_changes = isinstance(requires, list) and CHANGES in requires
    if as_changes != (document.get("changes") is not None):
        yield Problem("changes", f"it is there or not, other than requires {requires} says", "changes")
    if isinstance(counts, dict):
        if unknown := sorted(set(counts) - set(STATUSES)):
            yield Problem("counts", f"unknown statuses {unknown}, wanted {list(STATUSES)}", "status")
        numbers = [n for n in [*counts.values(), photos] if isinstance(n, int)]
        if len(numbers) == len(counts) + 1 and sum(numbers[:-1]) != photos:
            yield Problem("counts", f"{sum(numbers[:-1])} photos in all statuses together, {photos} seen", "sum")
    if isinstance(files, dict):
        if missing := sorted({*_ALWAYS, *(_OF_CHANGES if as_changes else ())} - set(files)):
            yield Problem("files", f"{', '.join(missing)} not recorded", "missing")
        elif isinstance(index, dict) and not _agree(index, files["index.faiss"]):
            yield Problem("index", "bytes and sha256 are not those of index.faiss in files", "index")
    if isinstance(created_at, str) and not _is_time(created_at):
        yield Problem("created_at", f"{created_at!r} is no ISO 8601 time", "time")


def _agree(index: dict[str, Any], record: object) -> bool:
    return not isinstance(record, dict) or all(index.get(key) == record.get(key) for key in ("bytes", "sha256"))


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _problem(error: dict[str, Any]) -> Problem:
    path = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    got = "" if error["type"] in {"missing", "value_error"} else f", got {error['input']!r:.60}"
    return Problem(path, message + got, str(error["type"]))
