"""Plan an evaluation: where the photos of a pairs file lie, and in which shards their faces are or will be."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from models.photo import SUFFIXES
from store.errors import LookalikeError, SourceError
from store.fingerprints import sha256_hex
from store.layout import embeddings_path, open_store, photos_path, request_path
from store.refs import ArtifactRef
from store.schemas import LISTING, PLAN, from_parquet, to_parquet
from store.shards import cut_into_shards, find_shard, read_photos
from store.sources import ListedPhoto, list_source
from store.storage import Storage
from store.version_files import read_photos_of
from store.versions import current_number, read_version
from tasks.steps.contract import Contract
from tasks.steps.pairs_file import Pair, PairsFile, PhotoName, read_pairs, read_people

__all__ = ["PAIRS", "EvaluationPlan", "Exclusion", "discard_evaluation", "plan_evaluation", "read_plan"]

Row = dict[str, Any]

_LFW_SUFFIXES = (".jpg", ".jpeg", ".png")

PAIRS = pa.schema(
    [
        pa.field("line", pa.int32(), nullable=False),
        *[pa.field(f"{side}{what}", pa.string()) for side in ("first", "second") for what in ("", "_uri", "_person")],
        pa.field("same", pa.bool_(), nullable=False),
        pa.field("fold", pa.int32()),
    ]
)
"""The pairs of an evaluation, under the store's runs/: names as the file has them, and the uri of each photo that is there."""


@dataclass(frozen=True)
class Exclusion:
    """What leaving people out did.

    Attributes:
        file: the list of people.
        names: in it.
        pairs_before: in the pairs file.
        pairs_left: those that show none of them.
    """

    file: str
    names: int
    pairs_before: int
    pairs_left: int


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation will do, small enough to cross a task boundary.

    Attributes:
        images: the folder, in its one spelling.
        pairs_file: the file, likewise.
        format: of it.
        people_unknown: why nobody knows who the photos show, or None.
        exclusion: who was left out, or None.
        pairs: PAIRS.
        table: PLAN, a row for every photo that is named and there, with its shard.
        requests: LISTING of each shard that is not committed yet.
        finished: none: what is committed is kept.
        kept: the committed shards that hold such photos.
        embedded: names of those shards that the encoder's embeddings are stored for.
    """

    images: str
    pairs_file: str
    format: str
    people_unknown: str | None
    exclusion: Exclusion | None
    pairs: ArtifactRef
    table: ArtifactRef
    requests: tuple[ArtifactRef, ...]
    finished: tuple[ArtifactRef, ...]
    kept: tuple[ArtifactRef, ...]
    embedded: frozenset[str]


def plan_evaluation(
    pairs: str,
    *,
    images: str,
    store: str,
    contract: Contract,
    encoder: str,
    exclude_people: str | None = None,
    shard_photos: int = 256,
) -> EvaluationPlan:
    """Find the photos of a pairs file in a folder, and the shards that hold them.

    A photo that a finished shard of these photos, of the published version or of the whole folder holds is taken from there.
    The others, and no photo that no pair names, are cut into shards of their own.

    Args:
        pairs: path or url of the pairs file.
        images: the folder that its names are relative to.
        store: its uri.
        contract: what faces are found by.
        encoder: the encoder's id.
        exclude_people: a list of people; pairs that show one of them are left out.
        shard_photos: photos a shard, about.

    Raises:
        SourceError: the pairs file or the list cannot be used, the folder holds no photo, or no pair is left.
    """
    file = read_pairs(pairs)
    kept_pairs, exclusion = _without(file, exclude_people)
    storage = open_store(store, create=True)
    listing = list_source(images, suffixes=SUFFIXES, store_uri=storage.uri)
    found = _Folder(listing.source, listing.photos)
    rows = [_pair_row(pair, found) for pair in kept_pairs]
    named = sorted({row[f"{side}_uri"] for row in rows for side in ("first", "second")} - {None})
    shards = _Shards(storage, contract=contract.id, shard_photos=shard_photos)
    shards.place(named, listed={photo.uri: photo for photo in listing.photos}, source=listing.source)
    names = set(shards.of_photo.values())
    table = [shards.listed[uri] | {"shard": shards.of_photo[uri], "attempt": None} for uri in named]
    return EvaluationPlan(
        images=listing.source,
        pairs_file=file.uri,
        format=file.format,
        people_unknown=file.people_unknown,
        exclusion=exclusion,
        pairs=_write(storage, f"runs/evaluations/{uuid.uuid4()}.parquet", rows, PAIRS),
        table=_write(storage, f"runs/plans/{uuid.uuid4()}.parquet", table, PLAN),
        requests=tuple(
            _write(storage, request_path(name), asked, LISTING) for name, asked in shards.to_compute.items()
        ),
        finished=(),
        kept=tuple(ref for name, ref in sorted(shards.committed.items()) if name in names),
        embedded=frozenset(name for name in names if storage.exists(embeddings_path(encoder, name))),
    )


def read_plan(plan: EvaluationPlan, *, storage: Storage) -> tuple[list[Row], list[Row]]:
    """The rows of a plan's two tables: PAIRS and PLAN."""
    rows = []
    for ref, schema in ((plan.pairs, PAIRS), (plan.table, PLAN)):
        data = storage.read(storage.path_of(ref.uri), sha256=ref.sha256)
        rows.append(from_parquet(data, schema, where=ref.uri).to_pylist())
    return rows[0], rows[1]


def discard_evaluation(plan: EvaluationPlan, *, store: str) -> None:
    """Remove what planning wrote under the store's runs/."""
    storage = open_store(store)
    for ref in (plan.pairs, plan.table, *plan.requests):
        storage.remove(storage.path_of(ref.uri))


def _without(file: PairsFile, exclude_people: str | None) -> tuple[Sequence[Pair], Exclusion | None]:
    """The pairs of which neither person is in the list."""
    if exclude_people is None:
        return file.pairs, None
    if file.people_unknown is not None:
        raise SourceError(f"nobody can be left out of {file.uri}: {file.people_unknown}")
    names = read_people(exclude_people)
    left = [pair for pair in file.pairs if not names & {pair.first.person, pair.second.person}]
    if not left:
        raise SourceError(f"no pair of {file.uri} is left without the {len(names):,} people of {exclude_people}")
    return left, Exclusion(exclude_people, len(names), len(file.pairs), len(left))


class _Folder:
    """The photos of a folder by their path in it; names without a suffix are found with any of LFW's."""

    def __init__(self, source: str, photos: Sequence[ListedPhoto]) -> None:
        self._source = source
        self._by_path = {
            photo.uri[len(source) + 1 :]: photo.uri for photo in photos if photo.uri.startswith(source + "/")
        }
        if not self._by_path:
            raise SourceError(
                f"the images {source} are no folder: give the folder that the pairs' names are relative to"
            )
        self._by_stem: dict[str, dict[str, str]] = {}
        for path, uri in self._by_path.items():
            stem, dot, suffix = path.rpartition(".")
            self._by_stem.setdefault(stem, {})[(dot + suffix).lower()] = uri

    def uri_of(self, photo: PhotoName) -> str | None:
        """The photo's uri, None if it is not there."""
        if photo.suffixed:
            return self._by_path.get(photo.path)
        there = self._by_stem.get(photo.path, {})
        return next((there[suffix] for suffix in _LFW_SUFFIXES if suffix in there), None)


def _pair_row(pair: Pair, folder: _Folder) -> Row:
    row: Row = {"line": pair.line, "same": pair.same, "fold": pair.fold}
    for side, photo in (("first", pair.first), ("second", pair.second)):
        row |= {side: photo.path, f"{side}_uri": folder.uri_of(photo), f"{side}_person": photo.person}
    return row


class _Shards:
    """Which shard each photo is taken from: committed ones first, new ones for the rest."""

    def __init__(self, storage: Storage, *, contract: str, shard_photos: int) -> None:
        self._storage, self._contract, self._shard_photos = storage, contract, shard_photos
        self.listed: dict[str, Row] = {}
        self.of_photo: dict[str, str] = {}
        self.committed: dict[str, ArtifactRef] = {}
        self.to_compute: dict[str, list[Row]] = {}

    def place(self, named: Sequence[str], *, listed: dict[str, ListedPhoto], source: str) -> None:
        """Give each named photo its shard."""
        wanted = set(named)
        self.listed = {uri: _listed_row(listed[uri], source) for uri in wanted}
        self._take_committed([self.listed[uri] for uri in named])  # first, so that a repeat takes what it took before
        self._take_from_version()
        if self.of_photo.keys() != wanted:
            self._take_committed([_listed_row(photo, source) for photo in listed.values()])
        left = [self.listed[uri] for uri in named if uri not in self.of_photo]
        attempt = 0
        while left:  # what could not be read in one attempt is asked for again in the next
            failed: list[Row] = []
            for name, members in self._cut(left, attempt=attempt):
                uris = {str(m["uri"]) for m in members}
                readable = self._readable(name) & uris if self._is_committed(name) else uris
                self._take(name, readable)
                failed += [m for m in members if m["uri"] not in readable]
                if name not in self.committed:
                    self.to_compute[name] = [{**m, "source": None} for m in members]  # equal for all who want it
            left, attempt = failed, attempt + 1
        if self.of_photo.keys() != wanted:
            raise LookalikeError(f"the plan lost photos: {len(wanted)} named, {len(self.of_photo)} planned")

    def _take_committed(self, rows: list[Row]) -> None:
        """Photos that a shard of these rows holds, as somebody cut and committed it, are taken from there."""
        for name, members in self._cut(rows, attempt=0):
            missing = {str(m["uri"]) for m in members} & self.listed.keys() - self.of_photo.keys()
            if missing and self._is_committed(name):
                self._take(name, self._readable(name))

    def _take_from_version(self) -> None:
        """Photos that the published version knows as they are now stay in its shards."""
        if current_number(self._storage) is None:
            return
        version = read_version(self._storage)
        if version.manifest.contract.id != self._contract:
            return
        for row in read_photos_of(self._storage, version).to_pylist():
            now = self.listed.get(str(row["uri"]))
            same = now is not None and all(now[name] == row[name] for name in ("size", "etag", "mtime_ns"))
            if same and row["status"] != "failed" and self._is_committed(str(row["shard"])):
                self._take(str(row["shard"]), {str(row["uri"])})

    def _cut(self, rows: list[Row], *, attempt: int) -> list[tuple[str, list[Row]]]:
        return list(cut_into_shards(rows, contract=self._contract, attempt=attempt, shard_photos=self._shard_photos))

    def _take(self, shard: str, uris: set[str]) -> None:
        for uri in uris & self.listed.keys() - self.of_photo.keys():
            self.of_photo[uri] = shard

    def _is_committed(self, shard: str) -> bool:
        if shard not in self.committed and self._storage.exists(photos_path(self._contract, shard)):
            there = find_shard(self._storage, contract=self._contract, shard=shard)
            assert there is not None  # noqa: S101
            self.committed[shard] = there
        return shard in self.committed

    def _readable(self, shard: str) -> set[str]:
        """The photos of a committed shard that were read, whatever was found."""
        photos = read_photos(self._storage, contract=self._contract, shard=shard).select(["uri", "status"]).to_pylist()
        return {str(row["uri"]) for row in photos if row["status"] != "failed"}


def _listed_row(photo: ListedPhoto, source: str) -> Row:
    stamp = {name: getattr(photo, name) for name in ("uri", "size", "etag", "mtime_ns")}
    return {**stamp, "source": source, "label": None, "metadata": None}


def _write(storage: Storage, path: str, rows: list[Row], schema: pa.Schema) -> ArtifactRef:
    narrow = [{name: row.get(name) for name in schema.names} for row in rows]
    data = to_parquet(pa.Table.from_pylist(narrow, schema=schema), schema)
    storage.write(path, data)
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=len(rows))
