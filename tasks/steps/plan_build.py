"""Plan a build: what came, changed and went since the published version, and which shards must be computed."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from store.fingerprints import sha256_hex
from store.forgotten import read_forgotten
from store.index_choice import AskedBudget, IndexBudget
from store.layout import compaction_path, embeddings_path, open_store, photos_path, request_path
from store.manifest import Manifest
from store.refs import ArtifactRef
from store.schemas import LEFT, LISTING, PLAN, VERSION_PHOTOS, from_parquet, to_parquet
from store.shards import cut_into_shards
from store.storage import Storage
from store.version_files import read_photos_of
from store.versions import PublishedVersion, current_number, read_version
from tasks.steps.compare_listing import Comparison, LookAt, PlanCounts, compare
from tasks.steps.contract import Contract
from tasks.steps.list_photos import ListedSource, list_photos
from tasks.steps.plan_compaction import Merged, compact
from tasks.steps.plan_difference import difference_of

__all__ = [
    "BuildPlan",
    "PlanCounts",
    "PlannedDifference",
    "compare_source",
    "discard_plan",
    "plan_build",
    "with_budget",
]

Row = dict[str, Any]


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do, and nothing else.

    Attributes:
        parent: CURRENT when it was planned.
        source: the source's one spelling.
        sources: of the next version.
        labelled_sources: those whose photos carry their folder's name as label.
        counts: against the parent.
        forgotten: photos that the next version counts and holds no row of.
        listing: LISTING of the source.
        table: PLAN, a row for every photo of the next version but those.
        requests: LISTING of each shard that is not committed yet.
        finished: LISTING of each new shard that an earlier run committed.
        compactions: PLAN of each shard that is put together from rows of others, whose names its rows hold.
        kept: the committed shards that the next version goes on using.
        embedded: names of all these shards that the encoder's embeddings are stored for.
        needed: False when the next version would be the parent again.
        only_retries: nothing but failed photos is tried again; when they fail once more, there is nothing to publish.
        budget: of the index.
        difference: what is not as the parent tells it; None where no parent has this contract and encoder, where nothing differs, or much.
    """

    parent: int | None
    source: str
    sources: tuple[str, ...]
    labelled_sources: tuple[str, ...]
    counts: PlanCounts
    forgotten: int
    listing: ArtifactRef
    table: ArtifactRef
    requests: tuple[ArtifactRef, ...]
    finished: tuple[ArtifactRef, ...]
    compactions: tuple[ArtifactRef, ...]
    kept: tuple[ArtifactRef, ...]
    embedded: frozenset[str]
    needed: bool
    only_retries: bool
    budget: IndexBudget
    difference: "PlannedDifference | None" = None


@dataclass(frozen=True)
class PlannedDifference:
    """What of a plan is not as its parent tells it.

    Attributes:
        revision: of the parent, whose rows are numbered.
        came: PLANNED; see `Difference`.
        left: LEFT, of the parent's photos; see `Difference`.
    """

    revision: int
    came: ArtifactRef
    left: ArtifactRef


def compare_source(source: str, *, store: str, contract: Contract, look_at: LookAt = "stamps") -> PlanCounts:
    """What a build of the source would do; nothing is computed or published."""
    storage = open_store(store, create=True)
    listed = list_photos(source, store=store)
    parent = _parent(storage)
    before = _parent_photos(storage, parent)
    found = _compare(storage, parent, before, listed, contract=contract, labels=None, look_at=look_at)
    storage.remove(storage.path_of(listed.listing.uri))
    return found.counts


def plan_build(
    listed: ListedSource,
    *,
    store: str,
    contract: Contract,
    encoder: str | None,
    labels: Literal["folder"] | None = None,
    shard_photos: int = 256,
    look_at: LookAt = "stamps",
    may_compact: bool = False,
) -> BuildPlan:
    """Plan the next version of a store.

    Args:
        listed: the source's listing.
        store: its uri.
        contract: what faces are found by.
        encoder: the encoder's id, or None when nothing is to be embedded.
        labels: "folder" takes the name of a photo's folder as its label, now and in later builds of this source.
        shard_photos: photos a shard, about.
        look_at: what tells a changed photo, or "failed": only photos that failed before are tried again.
        may_compact: plan compactions; whoever carries the plan out must then make them.
    """
    storage = open_store(store, create=True)
    parent = _parent(storage)
    manifest = parent.manifest if parent else None
    before = _parent_photos(storage, parent)
    found = _compare(storage, parent, before, listed, contract=contract, labels=labels, look_at=look_at)
    kept, merged = compact(found, manifest, shard_photos=shard_photos) if may_compact else (found.kept, [])
    tables = [kept]
    requests: list[ArtifactRef] = []
    finished: list[ArtifactRef] = []
    for attempt, shard, members in _shards_to_make(storage, found, contract=contract.id, shard_photos=shard_photos):
        tables.append(_table([{**m, "shard": shard, "attempt": attempt} for m in members], PLAN))
        there = storage.exists(photos_path(contract.id, shard))
        asked = [
            {**m, "source": None, "label": None, "metadata": None} for m in members
        ]  # equal for all plans that want this shard
        (finished if there else requests).append(_write(storage, request_path(shard), _table(asked, LISTING)))
    tables += [_table([{**row, "shard": one.shard} for row in one.rows], PLAN) for one in merged]
    table = pa.concat_tables(tables).sort_by("uri")
    plan_uuid = uuid.uuid4()
    made_otherwise = manifest is None or manifest.contract.id != contract.id
    made_otherwise |= manifest is not None and encoder is not None and manifest.encoder.id != encoder
    others = found.relabelled or made_otherwise
    needed = found.counts.differs or others
    return BuildPlan(
        parent=parent.number if parent else None,
        source=listed.source,
        sources=tuple(sorted({listed.source, *(manifest.sources if manifest else [])})),
        labelled_sources=_labelled_sources(manifest, listed.source, labels),
        counts=found.counts,
        forgotten=_forgotten(manifest, found, listed.source),
        listing=listed.listing,
        table=_write(storage, f"runs/plans/{plan_uuid}.parquet", table),
        requests=tuple(requests),
        finished=tuple(finished),
        compactions=tuple(_write_compaction(storage, one) for one in merged),
        embedded=_embedded(storage, manifest, encoder, _names(table)),
        kept=_kept_refs(storage, manifest, _names(kept)),
        needed=needed,
        only_retries=not (found.counts.added or found.counts.changed or found.counts.removed or others),
        budget=IndexBudget.of(manifest.index.budget if manifest else None),
        difference=_difference(storage, f"runs/plans/{plan_uuid}", manifest, table, before)
        if needed and not made_otherwise
        else None,
    )


def with_budget(plan: BuildPlan, asked: AskedBudget) -> BuildPlan:
    """The plan with what was asked of its index; another budget than the parent's makes another version."""
    budget = asked.after(plan.budget)
    return plan if budget == plan.budget else replace(plan, budget=budget, needed=True, only_retries=False)


def discard_plan(plan: BuildPlan, *, store: str) -> None:
    """Remove what planning wrote under the store's runs/."""
    storage = open_store(store)
    of_difference = (plan.difference.came, plan.difference.left) if plan.difference else ()
    for ref in (plan.listing, plan.table, *of_difference, *plan.requests, *plan.finished, *plan.compactions):
        storage.remove(storage.path_of(ref.uri))


def _difference(
    storage: Storage, name: str, manifest: Manifest | None, table: pa.Table, before: pa.Table
) -> PlannedDifference | None:
    """Written where an index may follow the one before: only an approximate one is kept as changes."""
    if manifest is None or manifest.index.trained is None:
        return None
    difference = difference_of(table, before)
    if difference is None:
        return None
    left = pa.table(
        {"of": pa.array(["photos"] * len(difference.left), pa.string()), "id": difference.left}, schema=LEFT
    )
    return PlannedDifference(
        revision=manifest.revision,
        came=_write(storage, f"{name}-came.parquet", difference.came),
        left=_write(storage, f"{name}-left.parquet", left),
    )


def _compare(
    storage: Storage,
    parent: PublishedVersion | None,
    before: pa.Table,
    listed: ListedSource,
    *,
    contract: Contract,
    labels: Literal["folder"] | None,
    look_at: LookAt,
) -> Comparison:
    manifest = parent.manifest if parent else None
    found = compare(
        _read(storage, listed.listing),
        before,
        source=listed.source,
        folder_labels=listed.source in _labelled_sources(manifest, listed.source, labels),
        same_contract=manifest is not None and manifest.contract.id == contract.id,
        forgotten=read_forgotten(storage),
        look_at=look_at,
    )
    return replace(found, counts=replace(found.counts, ignored=listed.ignored))


def _labelled_sources(manifest: Manifest | None, source: str, labels: Literal["folder"] | None) -> tuple[str, ...]:
    before = set(manifest.labelled_sources) if manifest else set()
    return tuple(sorted(before | ({source} if labels == "folder" else set())))


def _forgotten(manifest: Manifest | None, found: Comparison, source: str) -> int:
    """How many forgotten photos the next version counts: those listed now; of other sources no more is known than before."""
    before = manifest.counts.get("forgotten", 0) if manifest and set(manifest.sources) - {source} else 0
    return max(found.counts.forgotten, before)


def _shards_to_make(
    storage: Storage, found: Comparison, *, contract: str, shard_photos: int
) -> Iterator[tuple[int, str, list[Row]]]:
    """Attempt, name and members of each new shard; a retry takes the first attempt that no committed shard has."""
    for shard, members in _cut(found.new, contract, 0, shard_photos):
        yield 0, shard, members
    again: dict[int, list[Row]] = {}
    for row in found.again:
        again.setdefault(int(row["attempt"]), []).append(row)
    for first, group in sorted(again.items()):
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


def _parent_photos(storage: Storage, parent: PublishedVersion | None) -> pa.Table:
    if parent is None:
        return VERSION_PHOTOS.empty_table()
    return read_photos_of(storage, parent)


def _read(storage: Storage, ref: ArtifactRef) -> pa.Table:
    data = storage.read(storage.path_of(ref.uri), sha256=ref.sha256)
    return from_parquet(data, LISTING, where=ref.uri)


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def _names(table: pa.Table) -> set[str]:
    return set(table["shard"].unique().to_pylist())


def _write_compaction(storage: Storage, one: Merged) -> ArtifactRef:
    return _write(storage, compaction_path(one.shard), _table(one.rows, PLAN))


def _write(storage: Storage, path: str, table: pa.Table) -> ArtifactRef:
    data = to_parquet(table, table.schema)
    storage.write(path, data)
    return ArtifactRef(uri=storage.uri_of(path), sha256=sha256_hex(data), rows=table.num_rows)


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


def _embedded(storage: Storage, manifest: Manifest | None, encoder: str | None, shards: set[str]) -> frozenset[str]:
    """Of these shards those that this encoder has embedded: its own version's all have been, others are looked up."""
    if encoder is None:
        return frozenset()
    same = manifest is not None and manifest.encoder.id == encoder
    known = {shard.name for shard in manifest.shards} if manifest is not None and same else set()
    others = (shard for shard in shards - known if storage.exists(embeddings_path(encoder, shard)))
    return frozenset((shards & known) | set(others))
