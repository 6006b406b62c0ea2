"""What is known of a source's listings: which one a build has dealt with, and which one a build was asked for.

One small file a source under runs/, changed by compare-and-swap, so that of several watchers one asks for a build. Losing it
costs one build that finds nothing new.
"""

import json
import uuid
from dataclasses import dataclass, replace

from store.errors import ArtifactError
from store.layout import watch_path
from store.storage import Storage

__all__ = ["WatchRecord", "answer_listing", "claim_listing", "read_watch_record", "withdraw_claim"]

_TRIES = 20


@dataclass(frozen=True)
class WatchRecord:
    """A source's record; empty where there is none.

    Attributes:
        answered: sha256 of the listing that the last build which ended well had before it.
        announced: sha256 of the listing that a build was last asked for.
        announced_s: when that was, in seconds since the epoch.
        times: how often a build was asked for because of that listing.
        data: the file as it was read, for the swap; None where there is none.
    """

    answered: str | None = None
    announced: str | None = None
    announced_s: float = 0.0
    times: int = 0
    data: bytes | None = None


def read_watch_record(storage: Storage, source: str) -> WatchRecord:
    """The record of a source; one that cannot be read counts as none, and is replaced."""
    try:
        data = storage.read(watch_path(source))
    except ArtifactError:
        return WatchRecord()
    try:
        document = json.loads(data)
        return WatchRecord(
            answered=_text(document["answered"]),
            announced=_text(document["announced"]),
            announced_s=float(document["announced_s"]),
            times=int(document["times"]),
            data=data,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return WatchRecord(data=data)


def answer_listing(storage: Storage, source: str, listing: str) -> None:
    """Note that a build has dealt with a listing, whether or not it published anything.

    Args:
        storage: the store.
        source: the source's one spelling.
        listing: sha256 of the listing.
    """
    for _ in range(_TRIES):  # another may write between reading and swapping, seldom twice
        record = read_watch_record(storage, source)
        if record.answered == listing or _swap(storage, source, replace(record, answered=listing)) is not None:
            return


def claim_listing(
    storage: Storage, source: str, record: WatchRecord, *, listing: str, now_s: float
) -> WatchRecord | None:
    """Note that a build is asked for because of a listing, unless somebody wrote the record since it was read.

    Args:
        storage: the store.
        source: the source's one spelling.
        record: as it was read.
        listing: sha256 of the listing.
        now_s: seconds since the epoch.

    Returns:
        The record as it stands then, for the one caller that is to ask for the build; None for all others.
    """
    times = record.times + 1 if record.announced == listing else 1
    return _swap(storage, source, replace(record, announced=listing, announced_s=now_s, times=times))


def withdraw_claim(storage: Storage, source: str, claimed: WatchRecord, before: WatchRecord) -> None:
    """Put back what stood in the record before a claim whose build could not be asked for, unless it has changed again."""
    _swap(storage, source, replace(before, data=claimed.data))


def _swap(storage: Storage, source: str, record: WatchRecord) -> WatchRecord | None:
    document = {
        "format": 1,
        "source": source,
        "answered": record.answered,
        "announced": record.announced,
        "announced_s": record.announced_s,
        "times": record.times,
        "writer": uuid.uuid4().hex,  # no two writers bring equal bytes
    }
    data = json.dumps(document).encode()
    return replace(record, data=data) if storage.swap(watch_path(source), data, expected=record.data) else None


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"wanted text or nothing, got {value!r}")
    return value
