"""Compare a listing with the version that it follows: what came, changed and went, and what may stay as it is.

Columns are compared, not rows: memory is about a kilobyte a photo, and rows are made only of what is to be computed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import LookalikeError
from store.fingerprints import fingerprint, sha256_hex
from store.forgotten import Forgotten
from store.schemas import PLAN
from store.sources import read_uri

__all__ = ["Comparison", "LookAt", "PlanCounts", "compare", "look_at_of"]

Row = dict[str, Any]
Mask = npt.NDArray[np.bool_]
LookAt = Literal["stamps", "hashes", "failed", "listing"]
"""What tells a changed photo: its size and stamp, and its bytes where only the stamp differs; the bytes of every photo; the same
as stamps for photos that failed before and for no others, which stay as they are; or size and stamp alone, and no photo is read."""

_READERS = 16


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
class Comparison:
    """Photos of the next version.

    Attributes:
        counts: against the version before.
        kept: PLAN, those whose rows stay where they are.
        new: rows of those to compute.
        again: rows of those to compute once more under a fingerprint that a shard was named after, with `attempt`.
        tried: how many rows of each shard are failures that are tried again.
        relabelled: whether a photo has another label or other metadata than before.
    """

    counts: PlanCounts
    kept: pa.Table
    new: list[Row]
    again: list[Row]
    tried: dict[str, int]
    relabelled: bool


def compare(
    listing: pa.Table,
    before: pa.Table,
    *,
    source: str,
    folder_labels: bool,
    same_contract: bool,
    forgotten: Forgotten,
    look_at: LookAt = "stamps",
) -> Comparison:
    """What is to be done about each photo of a listing, and of the version before.

    A photo is unchanged when its size is, and its etag or else its time; where only the stamp differs, its bytes are hashed.

    Args:
        listing: LISTING of the source, one row a uri.
        before: VERSION_PHOTOS of the version before, of all its sources; no row where there is none.
        source: the source's one spelling.
        folder_labels: photos carry the name of their folder as label.
        same_contract: the version before was made under the same contract; otherwise nothing is kept.
        forgotten: listed photos of these are counted, and are in no other count.
        look_at: see `LookAt`.
    """
    if look_at == "failed":
        failed = before.filter(pc.and_(_under(before, source), pc.equal(before["status"], "failed")))
        listing = listing.filter(pc.is_in(listing["uri"], value_set=_array(failed["uri"])))
    at = pc.index_in(listing["uri"], value_set=_array(before["uri"]))
    old = before.take(at)
    is_old = _mask(pc.is_valid(at))
    same, stamped = _same(listing, old, is_old, look_at)
    hidden = _forgotten(listing, np.flatnonzero(~(is_old & same)), forgotten)
    failed_before = is_old & same & _mask(pc.equal(old["status"], "failed"))
    unchanged = is_old & same & ~failed_before
    changed = is_old & ~same & ~hidden
    added = ~is_old & ~hidden
    rows = _said(listing, old, is_old, folder_labels=folder_labels, source=source)
    differ = [_differs(old[name], rows[name]) for name in ("label", "metadata")]
    again = failed_before | (changed & stamped)
    kept, new = [rows.filter(unchanged)], [rows.filter((added | changed) & ~again)]
    kept[0] = kept[0].append_column("shard", old["shard"].filter(unchanged))
    kept[0] = kept[0].append_column("attempt", old["attempt"].filter(unchanged))
    kept[0] = kept[0].append_column("row_before", at.filter(pa.array(unchanged)).cast(pa.int64()))
    gone = ~_mask(pc.is_in(before["uri"], value_set=_array(listing["uri"])))
    removed = gone & _mask(_under(before, source)) & (look_at != "failed")
    stays = np.flatnonzero(gone & ~removed)
    kept.append(before.take(stays).append_column("row_before", pa.array(stays)))
    if not same_contract:
        new, kept = new + kept, []
    counts = PlanCounts(
        added=int(added.sum()),
        changed=int(changed.sum()),
        removed=int(removed.sum()),
        unchanged=int(unchanged.sum()),
        failed=int(failed_before.sum()),
        forgotten=int(hidden.sum()),
        ignored=0,
    )
    _check_sum(listing.num_rows, counts)
    return Comparison(
        counts=counts,
        kept=pa.concat_tables([_as_plan(table) for table in kept]) if kept else PLAN.empty_table(),
        new=[row for table in new for row in table.select(rows.column_names).to_pylist()],
        again=_with_attempt(rows.filter(again), old.filter(again)),
        tried=_tried(old.filter(failed_before)),
        relabelled=bool(np.any((differ[0] | differ[1]) & is_old)),
    )


def look_at_of(*, retry: Literal["failed"] | None, full: bool) -> LookAt:
    """What a build looks at, as users say it."""
    if retry is not None:
        return "failed"
    return "hashes" if full else "stamps"


def _same(listing: pa.Table, old: pa.Table, is_old: Mask, look_at: LookAt) -> tuple[Mask, Mask]:
    """Which listed photos have the bytes they had, and which have at least the size and stamp they had."""
    sizes = is_old & _mask(pc.equal(listing["size"], old["size"]))
    by_etag = _mask(pc.or_(pc.is_valid(listing["etag"]), pc.is_valid(old["etag"])))
    no_time = _mask(pc.and_(pc.is_null(listing["mtime_ns"]), pc.is_null(old["mtime_ns"])))
    times = _mask(pc.equal(listing["mtime_ns"], old["mtime_ns"])) | no_time
    stamped = sizes & np.where(by_etag, _mask(pc.equal(listing["etag"], old["etag"])), times)
    hashed = _mask(pc.is_valid(old["photo_sha256"]))
    same = stamped.copy()
    if look_at == "listing":
        return same, stamped
    asked = np.flatnonzero(sizes & hashed & (~stamped | (look_at == "hashes")))
    same[asked] = _same_bytes(listing.take(asked), old["photo_sha256"].take(asked))
    return same, stamped


def _same_bytes(listing: pa.Table, hashes: pa.ChunkedArray) -> list[bool]:
    """Whether each photo still has its hash; one that cannot be read is read again later, and its row says why it cannot be."""

    def has(row: tuple[str, int, str]) -> bool:
        uri, size, wanted = row
        try:
            return sha256_hex(read_uri(uri, max_bytes=size)) == wanted
        except Exception:  # every backend has its own kinds
            return False

    with ThreadPoolExecutor(_READERS) as readers:
        columns = (listing["uri"].to_pylist(), listing["size"].to_pylist(), hashes.to_pylist())
        return list(readers.map(has, zip(*columns, strict=True)))


def _forgotten(listing: pa.Table, asked: npt.NDArray[np.int64], forgotten: Forgotten) -> Mask:
    """Which listed photos were forgotten; only those that are not known are asked about, for known ones have rows."""
    hidden = np.zeros(listing.num_rows, np.bool_)
    if forgotten:
        for n, row in zip(asked, listing.take(asked).to_pylist(), strict=True):
            seen = fingerprint(row["uri"], size=row["size"], etag=row["etag"], mtime_ns=row["mtime_ns"])
            hidden[n] = forgotten.has("listed", seen)
    return hidden


def _said(listing: pa.Table, old: pa.Table, is_old: Mask, *, folder_labels: bool, source: str) -> pa.Table:
    """Label and metadata: a list's own, else by the folder's name; what another source said before stays."""
    elsewhere = _mask(pc.not_equal(old["source"], source)) | (is_old & _mask(pc.is_null(old["source"])))
    said = {name: pc.if_else(pa.array(elsewhere), old[name], None) for name in ("label", "metadata")}
    said["label"] = _folder_names(listing["uri"], source) if folder_labels else old["label"]
    for name, column in said.items():
        at = listing.schema.get_field_index(name)
        listing = listing.set_column(at, name, pc.coalesce(listing[name], column.cast(pa.string())))
    return listing


def _folder_names(uris: pa.ChunkedArray, source: str) -> pa.ChunkedArray:
    folders = pc.replace_substring_regex(uris, pattern="/[^/]*$", replacement="")
    names = pc.replace_substring_regex(folders, pattern="^.*/", replacement="")
    return pc.if_else(pc.equal(folders, source), pa.scalar(None, pa.string()), names)


def _with_attempt(rows: pa.Table, old: pa.Table) -> list[Row]:
    attempts = [int(attempt or 0) + 1 for attempt in old["attempt"].to_pylist()]
    return [row | {"attempt": attempt} for row, attempt in zip(rows.to_pylist(), attempts, strict=True)]


def _tried(old: pa.Table) -> dict[str, int]:
    return {str(each["values"]): int(each["counts"]) for each in old["shard"].value_counts().to_pylist()}


def _under(table: pa.Table, source: str) -> pa.ChunkedArray:
    named = pc.fill_null(pc.equal(table["source"], source), False)
    return pc.or_(named, pc.starts_with(table["uri"], pattern=source + "/"))


def _differs(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Mask:
    one_is_null = _mask(pc.xor(pc.is_null(a), pc.is_null(b)))
    return one_is_null | _mask(pc.not_equal(a, b))


def _as_plan(table: pa.Table) -> pa.Table:
    return table.select(PLAN.names).cast(PLAN)


def _mask(values: pa.ChunkedArray) -> Mask:
    """As numpy, null as false."""
    mask: Mask = np.asarray(pc.fill_null(values, False)).astype(np.bool_)
    return mask


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _check_sum(listed: int, counts: PlanCounts) -> None:
    planned = counts.added + counts.changed + counts.unchanged + counts.failed + counts.forgotten
    if listed != planned:
        raise LookalikeError(f"the plan lost photos: {listed} listed, {planned} planned")
