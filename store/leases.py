"""Leases: what a running build is about to use, so that nobody removes it meanwhile.

A lease is a file under runs/leases that its holder writes again and again. One that was not written for a while belongs to a
process that is gone, and holds nothing. Its age is told by the storage's own clock, whatever the machines' clocks say.
"""

import contextlib
import json
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from store.errors import ArtifactError, VersionError
from store.removal import read_removal, spare
from store.storage import Storage

__all__ = ["EXPIRES_S", "VACUUM", "Lease", "hold_lease", "live_leases", "storage_now_s"]

EXPIRES_S = 900.0
"""How long a lease outlives its last writing."""

_FOLDER = "runs/leases"
_OWNER = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,99}")
_RENEWALS = 5  # in the time after which it would expire
VACUUM = "vacuum-"
"""How the owners of vacuums' leases begin."""


@dataclass(frozen=True)
class Lease:
    """Who holds what.

    Attributes:
        owner: a build's uuid or another name of its own.
        shards: names of the shards that must stay, whatever their contract and encoder.
    """

    owner: str
    shards: frozenset[str]


@contextlib.contextmanager
def hold_lease(storage: Storage, owner: str, *, shards: Iterable[str], expires_s: float = EXPIRES_S) -> Iterator[None]:
    """Keep shards from being removed while this block runs.

    Take it before the shards are looked at for the last time: those that a vacuum was about to remove, and died, are spared.

    Args:
        storage: the store.
        owner: a name of the holder's own: letters, digits and dashes.
        shards: names of the shards that it reads, finished ones and those of its parent.
        expires_s: how long the lease outlives this process.

    Raises:
        VersionError: a vacuum is removing some of them right now; the message says what to do.
    """
    if not _OWNER.fullmatch(owner):
        raise VersionError(f"a lease is held by {owner!r}: wanted letters, digits and dashes")
    held = frozenset(shards)
    path = f"{_FOLDER}/{owner}.json"
    data = json.dumps({"format": 1, "owner": owner, "expires_s": expires_s, "shards": sorted(held)}).encode()
    storage.write(path, data)
    ended = threading.Event()
    renewer = threading.Thread(
        target=_renew, args=(storage, path, data, expires_s / _RENEWALS, ended), daemon=True, name="lease"
    )
    renewer.start()
    try:
        _refuse_removal(storage, held)
        yield
    finally:
        ended.set()
        renewer.join()
        with contextlib.suppress(Exception):  # it expires by itself
            storage.remove(path)


def live_leases(storage: Storage) -> list[Lease]:
    """The leases whose holders still write them.

    Raises:
        ArtifactError: a lease that is fresh cannot be read: what it holds is not known, so nothing may be removed.
    """
    names = [name for name in storage.names(_FOLDER) if name.endswith(".json")]
    if not names:
        return []
    now = storage_now_s(storage)
    live = []
    for name in names:
        path = f"{_FOLDER}/{name}"
        written = storage.modified_s(path)
        if written is None:
            continue
        lease, expires_s = _read(storage, path)
        if now - written < (EXPIRES_S if expires_s is None else expires_s):
            if lease is None:
                raise ArtifactError(f"{storage.uri_of(path)} is no lease: remove it if nothing runs, and try again")
            live.append(lease)
    return live


def storage_now_s(storage: Storage) -> float:
    """The time by the storage's own clock, in seconds since the epoch: when a file that is made now was made."""
    probe = f"{_FOLDER}/{uuid.uuid4().hex}.now"
    storage.write(probe, b"now")
    try:
        now = storage.modified_s(probe)
    finally:
        storage.remove(probe)
    if now is None:
        raise ArtifactError(f"{storage.uri_of(probe)} vanished while the store was asked for the time; try again")
    return now


def _read(storage: Storage, path: str) -> tuple[Lease | None, float | None]:
    """The lease, and after how many seconds it expires; None for what cannot be read."""
    try:
        document = json.loads(storage.read(path))
        shards = frozenset(str(name) for name in document["shards"])
        return Lease(owner=str(document["owner"]), shards=shards), float(document["expires_s"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, None
    except ArtifactError:  # it ended meanwhile
        return Lease(owner="", shards=frozenset()), None


def _renew(storage: Storage, path: str, data: bytes, every_s: float, ended: threading.Event) -> None:
    while not ended.wait(every_s):
        with contextlib.suppress(Exception):  # the next time may go better; four may fail before the lease expires
            storage.write(path, data)


def _refuse_removal(storage: Storage, held: frozenset[str]) -> None:
    """A vacuum writes down what it removes before it looks at leases; whoever comes second of the two sees the other."""
    removal = read_removal(storage)
    if removal is None or not (doomed := removal.shards & held):
        return
    if any(lease.owner.startswith(VACUUM) for lease in live_leases(storage)):
        raise VersionError(
            f"a vacuum is removing {len(doomed)} shards that would be used again; run the same command when it is done"
        )
    spare(storage, shards=doomed)
