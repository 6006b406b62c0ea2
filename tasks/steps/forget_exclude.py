"""Resolve a wish to be forgotten over every version and shard of a store, and exclude at once what it means."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import LookalikeError, VersionError
from store.fingerprints import fingerprint
from store.forgotten import add_forgotten, forgotten_key, read_forgotten, spots_around, tag
from store.layout import faces_path, photos_path
from store.schemas import FACES, PHOTOS, VERSION_PHOTOS, from_parquet
from store.storage import Storage, normalise_uri
from store.version_files import ADDED_FACES, FACES_FILE, files_of
from store.versions import published_numbers, read_version

__all__ = ["Excluded", "Wish", "exclude"]

Row = dict[str, Any]

_OF_A_FACE = ["face_id", "photo_sha256", "box"]
_TELL_OF_FACES = (FACES_FILE, ADDED_FACES)


@dataclass(frozen=True)
class Wish:
    """What somebody asks to be forgotten.

    Attributes:
        kind: what `value` is of.
        value: a photo's uri, a face's id in decimal digits, or a label.
    """

    kind: Literal["photo", "face", "label"]
    value: str

    def __post_init__(self) -> None:
        if self.kind == "photo":
            object.__setattr__(self, "value", normalise_uri(self.value))
        if self.kind == "face" and not (re.fullmatch(r"[0-9]{1,19}", self.value) and int(self.value) < 2**63):
            raise LookalikeError(
                f"--face is {self.value[:30]!r}: wanted a face's id in decimal digits, as a query shows it"
            )
        if not self.value:
            raise LookalikeError(f"--{self.kind} is empty: say who is to be forgotten")


@dataclass
class Excluded:
    """What a wish came to; it is held in memory only.

    Attributes:
        kind: of the wish.
        uris: of the forgotten photos.
        sha256s: of their bytes.
        face_ids: of the forgotten faces.
        labels: names that nobody else in the store has.
        shards: (contract, name) of the shards that hold some of it.
        tags: of all of it.
    """

    kind: str
    uris: set[str] = field(default_factory=set)
    sha256s: set[str] = field(default_factory=set)
    face_ids: set[int] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    shards: set[tuple[str, str]] = field(default_factory=set)
    tags: frozenset[str] = frozenset()


def exclude(storage: Storage, wish: Wish) -> Excluded:
    """Tag what a wish means: from now on no query shows it, and nothing ingests it.

    A photo is meant with every name of its bytes, in every version and shard. A label means all its photos, whole. A face
    means itself only, and its place in the photo, where another detector would find it again.

    Raises:
        VersionError: nothing of the kind is in the store, nor was it forgotten before; the message does not repeat the wish.
    """
    found = Excluded(kind=wish.kind)
    key = forgotten_key(storage)
    tags = {tag(key, "asked", f"{wish.kind}\0{wish.value}")}
    if wish.kind == "face":
        tags |= _face(storage, wish, key, found)
    else:
        tags |= _photos(storage, wish, key, found)
    if not found.shards and not (tags & read_forgotten(storage).tags):
        what = {"photo": "photo of this uri", "face": "face with this id", "label": "photo with this label"}[wish.kind]
        raise VersionError(
            f"no version and no shard of {storage.uri} has a {what}; `lookalike query` shows uris, ids and labels"
        )
    found.tags = frozenset(tags)
    add_forgotten(storage, tags)
    if wish.kind == "photo":
        found.uris.add(wish.value)
    return found


def _photos(storage: Storage, wish: Wish, key: bytes, found: Excluded) -> set[str]:
    """Tags of the photos that are meant, of how they were listed, and of their faces."""
    column = {"photo": "uri", "label": "label"}[wish.kind]
    for table in _version_photos(storage):
        meant = table.filter(pc.equal(table.column(column), wish.value)).to_pylist()
        _note(found, meant)
    for _, table in _shard_tables(storage, "photos"):
        if wish.kind == "photo":
            _note(found, table.filter(pc.equal(table.column("uri"), wish.value)).to_pylist())
    tags = {tag(key, "photo", sha256) for sha256 in found.sha256s}
    others: set[str] = set()
    for table in _version_photos(storage):
        for row in table.filter(_of(table, found)).to_pylist():
            found.uris.add(row["uri"])
            tags.add(_listed(key, row, row["size"]))
            if row["label"]:
                found.labels.add(row["label"])
        rest = table.filter(pc.invert(_of(table, found)))
        others |= set(pc.unique(rest.column("label")).to_pylist())
    found.labels -= others
    for place, table in _shard_tables(storage, "photos"):
        for row in table.filter(_of(table, found)).to_pylist():
            found.uris.add(row["uri"])
            found.shards.add(place)
            tags.add(_listed(key, row, row["bytes"] or 0))
    for place, table in _shard_tables(storage, "faces"):
        for row in table.filter(
            pc.is_in(table.column("photo_sha256"), pa.array(sorted(found.sha256s), pa.string()))
        ).to_pylist():
            found.face_ids.add(row["face_id"])
            found.shards.add(place)
    return tags | {tag(key, "face", str(identity)) for identity in found.face_ids}


def _face(storage: Storage, wish: Wish, key: bytes, found: Excluded) -> set[str]:
    """Tags of one face and of its place in the photo."""
    tags = {tag(key, "face", wish.value)}
    rows: list[Row] = []
    for place, table in _shard_tables(storage, "faces"):
        if here := table.filter(pc.equal(table.column("face_id"), int(wish.value))).to_pylist():
            rows += here
            found.shards.add(place)
            found.face_ids.add(int(wish.value))
    for number in published_numbers(storage):
        version = read_version(storage, number)
        files = files_of(storage, version)
        for name in files.raw_tables():
            if name in _TELL_OF_FACES:
                table = files.table(name, _OF_A_FACE)
                rows += table.filter(pc.equal(table.column("face_id"), int(wish.value))).to_pylist()
    for row in rows:
        tags |= {tag(key, "spot", spot) for spot in spots_around(row["photo_sha256"], row["box"])}
    return tags


def _note(found: Excluded, rows: Iterable[Row]) -> None:
    for row in rows:
        found.uris.add(row["uri"])
        if row["photo_sha256"]:
            found.sha256s.add(row["photo_sha256"])


def _of(table: pa.Table, found: Excluded) -> pa.ChunkedArray:
    """Which rows are of a meant photo: of its bytes, or of its name where its bytes are not known."""
    sha256, uri = table.column("photo_sha256"), table.column("uri")
    same = pc.fill_null(pc.is_in(sha256, pa.array(sorted(found.sha256s), pa.string())), False)
    named = pc.and_(pc.is_null(sha256), pc.is_in(uri, pa.array(sorted(found.uris), pa.string())))
    return pc.or_(same, named)


def _listed(key: bytes, row: Row, size: int) -> str:
    return tag(key, "listed", fingerprint(row["uri"], size=size, etag=row["etag"], mtime_ns=row["mtime_ns"]))


def _version_photos(storage: Storage) -> Iterator[pa.Table]:
    for number in published_numbers(storage):
        version = read_version(storage, number)
        files = files_of(storage, version)
        for name in files.raw_tables():
            if name not in _TELL_OF_FACES:
                yield files.table(name, VERSION_PHOTOS.names)


def _shard_tables(storage: Storage, kind: Literal["photos", "faces"]) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    schema, path_of = (PHOTOS, photos_path) if kind == "photos" else (FACES, faces_path)
    columns = PHOTOS.names if kind == "photos" else _OF_A_FACE
    for contract in storage.names(kind):
        for name in storage.names(f"{kind}/{contract}"):
            if name.endswith(".parquet"):
                place = (contract, name.removesuffix(".parquet"))
                path = path_of(*place)
                yield place, from_parquet(storage.read(path), schema, where=storage.uri_of(path), columns=columns)
