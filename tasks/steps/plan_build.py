"""Plan a build: what came, changed and went since the published version, and which shards must be computed."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from store.errors import LookalikeError
from store.fingerprints import sha256_hex
from store.layout import embeddings_path, open_store, photos_path, request_path
from store.manifest import Manifest
from store.refs import ArtifactRef
from store.schemas import LISTING, PLAN, VERSION_PHOTOS, from_parquet, to_parquet
from store.shards import cut_into_shards
from store.sources import read_uri
from store.storage import Storage
from store.versions import PublishedVersion, current_number, read_file, read_version
from tasks.steps.contract import Contract
from tasks.steps.list_photos import ListedSource, list_photos

__all__ = ["BuildPlan", "PlanCounts", "compare_source", "discard_plan", "plan_build"]

Row = dict[str, Any]


@dataclass(frozen=True)
class PlanCounts:
    """How a source differs from the published version, in photos."""

    added: int
    changed: int
    removed: int
    unchanged: int
    failed: int
    forgotten: int
    ignored: int

    def as_json(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    @property
    def differs(self) -> bool:
        """Whether a build has photos to add, to drop or to try again."""
        return bool(self.added or self.changed or self.removed or self.failed)


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do, and nothing else.

    Attributes:
        parent: CURRENT when it was planned.
        source: the source's one spelling.
        sources: of the next version.
        labelled_sources: those whose photos carry their folder's name as label.
        counts: against the parent.
        listing: LISTING of the source.
        table: PLAN, a row for every photo of the next version.
        requests: LISTING of each shard that is not committed yet.
        finished: LISTING of each new shard that an earlier run committed.
        kept: the committed shards that the next version goes on using.
        embedded: names of all these shards that the encoder's embeddings are stored for.
        needed: False when the next version would be the parent again.
        only_retries: nothing but failed photos is tried again; when they fail once more, there is nothing to publish.
    """

    parent: int | None
    source: str
    sources: tuple[str, ...]
    labelled_sources: tuple[str, ...]
    counts: PlanCounts
    listing: ArtifactRef
    table: ArtifactRef
    requests: tuple[ArtifactRef, ...]
    finished: tuple[ArtifactRef, ...]
    kept: tuple[ArtifactRef, ...]
    embedded: frozenset[str]
    needed: bool
    only_retries: bool


@dataclass(frozen=True)
class _Comparison:
    """Rows of the next version: those whose shard stays, and those to compute, new ones apart from retried ones."""

    counts: PlanCounts
    kept: list[Row]
    new: list[Row]
    retried: list[Row]
    relabelled: bool


def compare_source(source: str, *, store: str, contract: Contract) -> PlanCounts:
    """What a build of the source would do; nothing is computed or published."""
    storage = open_store(store, create=True)
    listed = list_photos(source, store=store)
    counts = _compare(storage, listed, contract=contract, labels=None).counts
    storage.remove(storage.path_of(listed.listing.uri))
    return counts


def plan_build(
    listed: ListedSource,
    *,
    store: str,
    contract: Contract,
    encoder: str | None,
    labels: Literal["folder"] | None = None,
    shard_photos: int = 256,
) -> BuildPlan:
    """Plan the next version of a store.

    Args:
        listed: the source's listing.
        store: its uri.
        contract: what faces are found by.
        encoder: the encoder's id, or None when nothing is to be embedded.
        labels: "folder" takes the name of a photo's folder as its label, now and in later builds of this source.
        shard_photos: photos a shard, about.
    """
    storage = open_store(store, create=True)
    parent = _parent(storage)
    found = _compare(storage, listed, contract=contract, labels=labels)
    requests: list[ArtifactRef] = []
    finished: list[ArtifactRef] = []
    rows = list(found.kept)
    for attempt, shard, members in _shards_to_make(storage, found, contract=contract.id, shard_photos=shard_photos):
        rows += [{**m, "shard": shard, "attempt": attempt} for m in members]
        there = storage.exists(photos_path(contract.id, shard))
        asked = [
            {**m, "source": None, "label": None, "metadata": None} for m in members
        ]  # equal for all plans that want this shard
        (finished if there else requests).append(_write_rows(storage, request_path(shard), asked, LISTING))
    rows.sort(key=lambda r: str(r["uri"]))
    manifest = parent.manifest if parent else None
    made_otherwise = manifest is None or manifest.contract.id != contract.id
    made_otherwise |= manifest is not None and encoder is not None and manifest.encoder.id != encoder
    others = found.relabelled or made_otherwise
    return BuildPlan(
        parent=parent.number if parent else None,
        source=listed.source,
        sources=tuple(sorted({listed.source, *(manifest.sources if manifest else [])})),
        labelled_sources=_labelled_sources(manifest, listed.source, labels),
        counts=found.counts,
        listing=listed.listing,
        table=_write_rows(storage, f"runs/plans/{uuid.uuid4()}.parquet", rows, PLAN),
        requests=tuple(requests),
        finished=tuple(finished),
        embedded=_embedded(storage, encoder, {str(r["shard"]) for r in rows}),
        kept=_kept_refs(storage, manifest, {str(r["shard"]) for r in found.kept}),
        needed=found.counts.differs or others,
        only_retries=not (found.counts.added or found.counts.changed or found.counts.removed or others),
    )


def discard_plan(plan: BuildPlan, *, store: str) -> None:
    """Remove what planning wrote under the store's runs/."""
    storage = open_store(store)
    for ref in (plan.listing, plan.table, *plan.requests, *plan.finished):
        storage.remove(storage.path_of(ref.uri))


def _compare(
    storage: Storage, listed: ListedSource, *, contract: Contract, labels: Literal["folder"] | None
) -> _Comparison:
    parent = _parent(storage)
    manifest = parent.manifest if parent else None
    before = {str(r["uri"]): r for r in _parent_rows(storage, parent)}
    now = _read_rows(storage, listed.listing)
    labelled = listed.source in _labelled_sources(manifest, listed.source, labels)
    same_contract = manifest is not None and manifest.contract.id == contract.id
    kept: list[Row] = []
    new: list[Row] = []
    retried: list[Row] = []
    counts = {"added": 0, "changed": 0, "unchanged": 0, "failed": 0}
    relabelled = False
    for listed_row in now:
        old = before.pop(str(listed_row["uri"]), None)
        row = listed_row | _said_of(listed_row, old, folder_labels=labelled, source=listed.source)
        relabelled |= old is not None and any(old[name] != row[name] for name in ("label", "metadata"))
        kind = _kind(row, old)
        counts[kind] += 1
        if kind == "failed" and old is not None:
            retried.append({**row, "attempt": int(old["attempt"] or 0) + 1})
        elif kind == "unchanged" and old is not None and same_contract:
            kept.append({**row, "shard": old["shard"], "attempt": old["attempt"]})
        else:
            new.append(row)
    removed = [r for r in before.values() if _is_under(r, listed.source)]
    for old in before.values():
        if not _is_under(old, listed.source):
            (kept if same_contract else new).append(old)
    result = PlanCounts(**counts, removed=len(removed), forgotten=0, ignored=listed.ignored)
    if listed.listing.rows != sum(counts.values()):
        raise LookalikeError(f"the plan lost photos: {listed.listing.rows} listed, {sum(counts.values())} planned")
    return _Comparison(counts=result, kept=kept, new=new, retried=retried, relabelled=relabelled)


def _kind(row: Row, old: Row | None) -> Literal["added", "changed", "unchanged", "failed"]:
    """How a listed photo stands to the parent's row; bytes are read only where size agrees and time does not."""
    if old is None:
        return "added"
    same_stamp = row["etag"] == old["etag"] if row["etag"] or old["etag"] else row["mtime_ns"] == old["mtime_ns"]
    same = row["size"] == old["size"] and (same_stamp or _same_bytes(row, old))
    if same:
        return "failed" if old["status"] == "failed" else "unchanged"
    return "changed"


def _same_bytes(row: Row, old: Row) -> bool:
    if not old["photo_sha256"]:
        return False
    try:
        data = read_uri(str(row["uri"]), max_bytes=int(row["size"]))
    except Exception:  # every backend has its own kinds; the photo is read again, and its row says why it cannot be
        return False
    return sha256_hex(data) == str(old["photo_sha256"])


def _is_under(row: Row, source: str) -> bool:
    return row["source"] == source or str(row["uri"]).startswith(source + "/")


def _said_of(row: Row, old: Row | None, *, folder_labels: bool, source: str) -> Row:
    """Label and metadata: a list's own, else by the folder's name; what another source said before stays."""
    said = {name: (old or {}).get(name) if old and old["source"] != source else None for name in ("label", "metadata")}
    if not folder_labels and old is not None:
        said["label"] = old["label"]
    if folder_labels:
        said["label"] = _folder_label(str(row["uri"]), source)
    return {name: row[name] if row[name] is not None else said[name] for name in said}


def _folder_label(uri: str, source: str) -> str | None:
    folder = os.path.dirname(uri)
    return os.path.basename(folder) if folder != source else None


def _labelled_sources(manifest: Manifest | None, source: str, labels: Literal["folder"] | None) -> tuple[str, ...]:
    before = set(manifest.labelled_sources) if manifest else set()
    return tuple(sorted(before | ({source} if labels == "folder" else set())))


def _shards_to_make(
    storage: Storage, found: _Comparison, *, contract: str, shard_photos: int
) -> Iterator[tuple[int, str, list[Row]]]:
    """Attempt, name and members of each new shard; a retry takes the first attempt that no committed shard has."""
    for shard, members in _cut(found.new, contract, 0, shard_photos):
        yield 0, shard, members
    retried: dict[int, list[Row]] = {}
    for row in found.retried:
        retried.setdefault(int(row["attempt"]), []).append(row)
    for first, group in sorted(retried.items()):
        attempt = first
        while any(
            storage.exists(photos_path(contract, name)) for name, _ in _cut(group, contract, attempt, shard_photos)
        ):
            attempt += 1
        for shard, members in _cut(group, contract, attempt, shard_photos):
            yield attempt, shard, members


def _cut(group: list[Row], contract: str, attempt: int, shard_photos: int) -> Iterator[tuple[str, list[Row]]]:
    return cut_into_shards(group, contract=contract, attempt=attempt, shard_photos=shard_photos)


def _parent(storage: Storage) -> PublishedVersion | None:
    return read_version(storage) if current_number(storage) is not None else None


def _parent_rows(storage: Storage, parent: PublishedVersion | None) -> list[Row]:
    if parent is None:
        return []
    data = read_file(storage, parent, "photos.parquet")
    rows: list[Row] = from_parquet(data, VERSION_PHOTOS, where=f"version {parent.number}'s photos").to_pylist()
    return rows


def _read_rows(storage: Storage, ref: ArtifactRef) -> list[Row]:
    data = storage.read(storage.path_of(ref.uri), sha256=ref.sha256)
    rows: list[Row] = from_parquet(data, LISTING, where=ref.uri).to_pylist()
    return rows


def _write_rows(storage: Storage, path: str, rows: list[Row], schema: pa.Schema) -> ArtifactRef:
    narrow = [{name: row.get(name) for name in schema.names} for row in rows]
    data = to_parquet(pa.Table.from_pylist(narrow, schema=schema), schema)
    storage.write(path, data)
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=len(rows))


def _kept_refs(storage: Storage, manifest: Manifest | None, shards: set[str]) -> tuple[ArtifactRef, ...]:
    if manifest is None:
        return ()
    return tuple(
        ArtifactRef(
            uri=storage.uri_of(photos_path(manifest.contract.id, s.name)), sha256=s.photos_sha256, rows=s.photos
        )
        for s in manifest.shards
        if s.name in shards
    )


def _embedded(storage: Storage, encoder: str | None, shards: set[str]) -> frozenset[str]:
    if encoder is None:
        return frozenset()
    return frozenset(shard for shard in shards if storage.exists(embeddings_path(encoder, shard)))
