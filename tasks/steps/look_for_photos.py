"""Look whether a source holds photos that no build has dealt with: listings are compared, no photo is read."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from models.photo import SUFFIXES
from store.errors import EmptySourceError, LookalikeError
from store.fingerprints import sha256_hex
from store.forgotten import read_forgotten
from store.layout import open_store
from store.schemas import LISTING, VERSION_PHOTOS, to_parquet
from store.sources import Listing, list_source
from store.storage import Storage, normalise_uri
from store.version_files import read_photos_of
from store.versions import current_number, read_version
from store.watch_record import WatchRecord, answer_listing, claim_listing, read_watch_record, withdraw_claim
from tasks.steps.compare_listing import LookAt, compare
from tasks.steps.list_photos import table_of
from tasks.steps.plan_build import BuildPlan

__all__ = [
    "Look",
    "answer_plan",
    "claim_look",
    "look_for_photos",
    "look_until_settled",
    "watched_sources",
    "withdraw_look",
]

_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Look:
    """How a source differs from the published version, by its listing alone.

    Attributes:
        source: the source's one spelling.
        store: its uri.
        listing: sha256 of LISTING.
        version: CURRENT, or None.
        photos: in the listing.
        added: photos that the version does not know.
        changed: photos with another size or stamp.
        removed: photos of the version that are not listed any more.
        relabelled: whether a photo has another label or other metadata than before.
        record: what was announced and answered before.
    """

    source: str
    store: str
    listing: str
    version: int | None
    photos: int
    added: int
    changed: int
    removed: int
    relabelled: bool
    record: WatchRecord

    @property
    def differs(self) -> bool:
        """Whether there is something that no build has dealt with; one that ended well has dealt with all it listed."""
        return bool(self.added or self.changed or self.removed or self.relabelled)

    @property
    def counts(self) -> dict[str, int]:
        """The photos, by what became of them."""
        return {"photos": self.photos, "added": self.added, "changed": self.changed, "removed": self.removed}

    def due(self, *, now_s: float, again_after_s: float) -> bool:
        """Whether a build is to be asked for now.

        For the same listing it is asked for again only when the first one has not ended well after `again_after_s`, and then
        after twice, four times as long, at most a day.
        """
        if not self.differs:
            return False
        if self.record.announced != self.listing:
            return True
        waits_s = min(again_after_s * 2.0 ** min(self.record.times - 1, 32), _LONGEST_S)
        return now_s - self.record.announced_s >= waits_s

    def as_json(self) -> dict[str, Any]:
        """What an event tells of it."""
        return {
            "source": self.source,
            "store": self.store,
            "listing": self.listing,
            "version": self.version,
            **self.counts,
        }


def watched_sources(source: str | None, *, store: str) -> list[str]:
    """The source, or without one all that the published version was built from.

    Raises:
        LookalikeError: no source is given, and nothing was published yet.
    """
    if source is not None:
        return [normalise_uri(source)]
    storage = open_store(store)
    if current_number(storage) is None:
        raise LookalikeError(f"the store {storage.uri} has no version yet: name the source to watch")
    return sorted(read_version(storage).manifest.sources)


def look_for_photos(source: str, *, store: str) -> Look:
    """Compare a source's listing with the published version; no photo is read, nothing is written.

    A listing that the last build had before it is not compared at all. Photos that could not be read before are no news.

    Raises:
        SourceError: the source is missing or cannot be listed, or is empty although the version has photos of it.
    """
    storage = open_store(store, create=True)
    uri = normalise_uri(source)
    number = current_number(storage)
    record = read_watch_record(storage, uri)
    table = _listing(uri, storage)
    listing = sha256_hex(to_parquet(table, LISTING))
    look = Look(
        source=uri, store=storage.uri, listing=listing, version=number,
        photos=table.num_rows, added=0, changed=0, removed=0, relabelled=False, record=record,
    )  # fmt: skip
    if listing == record.answered:
        return look
    return _compared(look, table, storage)


def look_until_settled(
    source: str, *, store: str, settle_s: float, longest_s: float, sleep: Callable[[float], None] = time.sleep
) -> Look:
    """Look, and where something came look again until two looks see the same: photos that are still being copied are waited for.

    Args:
        source: what `look_for_photos` takes.
        store: its uri.
        settle_s: seconds between two looks.
        longest_s: seconds after which the last look counts, whatever still comes.
        sleep: waits.
    """
    look = look_for_photos(source, store=store)
    waited_s = 0.0
    while look.differs and look.listing != look.record.announced and waited_s < longest_s:
        sleep(settle_s)
        waited_s += max(settle_s, 0.1)
        before, look = look, look_for_photos(source, store=store)
        if look.listing == before.listing:
            break
    return look


def claim_look(look: Look, *, now_s: float) -> Look | None:
    """The look as it is to be announced, for the one watcher that may; None where another was faster or a build has ended."""
    claimed = claim_listing(open_store(look.store), look.source, look.record, listing=look.listing, now_s=now_s)
    return None if claimed is None else replace(look, record=claimed)


def withdraw_look(claimed: Look, before: Look) -> None:
    """Take a claim back whose announcement failed."""
    withdraw_claim(open_store(before.store), before.source, claimed.record, before.record)


def answer_plan(plan: BuildPlan, *, store: str, look_at: LookAt) -> None:
    """Note that a build has dealt with everything that its source listed, unless it looked at failed photos only."""
    if look_at != "failed":
        answer_listing(open_store(store), plan.source, plan.listing.sha256)


def _listing(uri: str, storage: Storage) -> pa.Table:
    try:
        return table_of(list_source(uri, suffixes=SUFFIXES, store_uri=storage.uri))
    except EmptySourceError:
        if current_number(storage) is not None and uri in read_version(storage).manifest.sources:
            raise  # a disk that is not mounted is no reason to remove everybody
        return table_of(Listing(source=uri, photos=(), ignored=0))


def _compared(look: Look, table: pa.Table, storage: Storage) -> Look:
    if look.version is None:
        before, labelled = VERSION_PHOTOS.empty_table(), False
    else:
        version = read_version(storage, look.version)
        labelled = look.source in version.manifest.labelled_sources
        before = read_photos_of(storage, version)
    found = compare(
        table,
        before,
        source=look.source,
        folder_labels=labelled,
        same_contract=True,
        forgotten=read_forgotten(storage),
        look_at="listing",
    )
    counts = found.counts
    return replace(
        look, added=counts.added, changed=counts.changed, removed=counts.removed, relabelled=found.relabelled
    )
