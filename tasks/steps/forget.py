"""Forget somebody: exclude at once, purge, and prove it.

What is meant is kept in this process's memory under a ticket that says nothing, so that whoever runs the steps (Prefect, which
keeps parameters and names of runs in its database) is told nothing personal.
"""

import secrets
import time
from dataclasses import dataclass
from typing import Any

from store.audit import add_entry, verify_audit
from store.encoders import read_card, stored_encoders
from store.forgotten import read_forgotten
from store.layout import open_store
from store.storage import Storage
from tasks.steps.forget_exclude import Excluded, Wish, exclude
from tasks.steps.forget_prefect import redact_prefect, scan_prefect
from tasks.steps.forget_purge import Purged, purge_forgotten
from tasks.steps.forget_scan import Needles, gather_needles, scan_store

__all__ = ["begin_forget", "forget_now", "prove_forgotten", "purge_store"]

_REST = "rest"
_PAUSES_S = (0.0, 1.0, 3.0, 6.0)


@dataclass(frozen=True)
class _Begun:
    excluded: Excluded
    needles: Needles


_begun: dict[str, _Begun] = {}


def begin_forget(wish: Wish | None, *, store: str) -> str:
    """Exclude what is meant from every answer, and remember in this process what to look for.

    Args:
        wish: None finishes what was begun before and asks for nothing new.
        store: its uri.

    Returns:
        A ticket for `prove_forgotten`.

    Raises:
        StoreError: there is no store.
        VersionError: the store has nothing of what is asked for.
    """
    storage = open_store(store)
    excluded = exclude(storage, wish) if wish is not None else Excluded(kind=_REST)
    needles = gather_needles(storage, excluded)
    redact_prefect(needles)
    ticket = secrets.token_hex(8)
    _begun[ticket] = _Begun(excluded, needles)
    return ticket


def purge_store(*, store: str) -> Purged:
    """Remove from the store whatever its tags tell of; see `purge_forgotten`."""
    return purge_forgotten(open_store(store))


def prove_forgotten(ticket: str | None, *, store: str, purged: Purged) -> dict[str, Any]:
    """Look through every byte of the store for what was forgotten, and put the answer on record.

    Args:
        ticket: from `begin_forget` in this process; None where only the tags are known, and are asked of every row.
        store: its uri.
        purged: what the purge changed.

    Returns:
        What the command prints: numbers only, nothing personal.
    """
    storage = open_store(store)
    begun = _begun.pop(ticket or "", _Begun(Excluded(kind=_REST), Needles()))
    scan = scan_store(storage, begun.needles)
    prefect_files, prefect_hits = _settle_prefect(begun.needles)
    hits = {kind: n + prefect_hits[kind] for kind, n in scan.hits.items()}
    again = purge_forgotten(storage)  # every row is asked again: nothing may be left to do
    left = bool(again.versions or again.shards or again.leftovers)
    verified = not any(hits.values()) and not left
    facts = {
        "photos": len(begun.excluded.sha256s) or len(begun.excluded.uris) * bool(begun.excluded.shards),
        "faces": len(begun.excluded.face_ids),
        "versions_rewritten": list(purged.versions),
        "shard_files_removed": purged.shards,
        "scan": {
            "files": scan.files + prefect_files,
            "bytes": scan.bytes,
            "searched": scan.searched,
            "hits": hits,
        },
        "verified": verified,
    }
    if begun.excluded.kind == "face":
        facts["photos"] = 0
    audit = add_entry(storage, kind=begun.excluded.kind, tags=begun.excluded.tags, facts=facts)
    problems = [f"{n} needles of the kind {kind} were found" for kind, n in hits.items() if n]
    if left:
        problems.append(
            "something came back while it was removed: run `lookalike forget --resume` when nothing else runs"
        )
    problems += [f"{p.path}: {p.sentence}" for p in verify_audit(storage, last=audit)]
    return {
        **facts,
        "resumed": begun.excluded.kind == _REST,
        "tags": len(read_forgotten(storage).tags),
        "audit_sha256": audit,
        "trained_encoders": _trained_here(storage),
        "problems": problems,
    }


def _settle_prefect(needles: Needles) -> tuple[int, dict[str, int]]:
    """Look through what Prefect keeps; it writes down what earlier runs did some seconds late, and that is taken out too."""
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        files, hits = scan_prefect(needles)
        if not any(hits.values()):
            break
        redact_prefect(needles)
    return files, hits


def forget_now(wish: Wish | None, *, store: str) -> dict[str, Any]:
    """All steps one after another, as the flow calls them, on a machine without Prefect."""
    ticket = begin_forget(wish, store=store)
    return prove_forgotten(ticket, store=store, purged=purge_store(store=store))


def _trained_here(storage: Storage) -> list[str]:
    """Encoders that learned from photos and may remember some: their weights cannot be asked whom."""
    return [encoder for encoder in stored_encoders(storage) if read_card(storage, encoder).get("training")]
