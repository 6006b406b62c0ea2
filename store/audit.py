"""The record of erasures: who was forgotten is not in it, that somebody was is, and nobody can change it unseen.

`audit/000001.json`, `audit/000002.json`, ...: each is made exclusively, holds the sha256 of the one before, and is sealed under
the store's key. What is taken off the end leaves no gap: it shows against the last entry's sha256, which `forget` prints.
"""

import hmac
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from store.errors import ArtifactError
from store.fingerprints import canonical_json, sha256_hex
from store.forgotten import forgotten_key
from store.manifest import Problem
from store.storage import Storage

__all__ = ["add_entry", "entry_path", "read_entries", "verify_audit"]

_FOLDER = "audit"
_ROUNDS = 100


def entry_path(sequence: int) -> str:
    """Where an entry stands."""
    return f"{_FOLDER}/{sequence:06d}.json"


def add_entry(storage: Storage, *, kind: str, tags: Iterable[str], facts: dict[str, Any]) -> str:
    """Add an entry behind the last one.

    Args:
        storage: the store.
        kind: what was forgotten: photo, face, label, or rest where an interrupted forget was finished.
        tags: keyed hashes of it.
        facts: counts and answers; nothing personal.

    Returns:
        The entry's sha256, by which a later `verify_audit` knows that it is still there.

    Raises:
        ArtifactError: the record is broken already, or others kept adding to it.
    """
    key, taken = forgotten_key(storage), sorted(tags)
    for _ in range(_ROUNDS):
        numbers = _numbers(storage)
        previous = sha256_hex(storage.read(entry_path(numbers[-1]))) if numbers else None
        entry = {
            "format": 1,
            "sequence": (numbers[-1] if numbers else 0) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "previous": previous,
            "forgotten": kind,
            "tags": taken,
            **facts,
        }
        data = json.dumps(entry | {"seal": _seal(key, entry)}, indent=1, sort_keys=True).encode() + b"\n"
        if storage.create(entry_path(entry["sequence"]), data):
            return sha256_hex(data)
    raise ArtifactError(f"{storage.uri_of(_FOLDER)} grew {_ROUNDS} times while it was written; try again")


def read_entries(storage: Storage) -> list[dict[str, Any]]:
    """The entries in their order.

    Raises:
        ArtifactError: one cannot be read.
    """
    return [_parsed(storage, number) for number in _numbers(storage)]


def verify_audit(storage: Storage, *, last: str | None = None) -> list[Problem]:
    """Every sign that the record was changed: entries altered, removed, put elsewhere, or made by somebody without the key.

    Args:
        storage: the store.
        last: sha256 of an entry that must be there, as `forget` printed it.
    """
    problems: list[Problem] = []
    numbers = _numbers(storage)
    if not numbers and last is None:
        return problems
    key, previous, seen = forgotten_key(storage), None, set()
    for wanted, number in enumerate(numbers, start=1):
        path, data = entry_path(number), storage.read(entry_path(number))
        seen.add(sha256_hex(data))
        if number != wanted:
            problems.append(Problem(path, f"entry {wanted} is missing before it", "audit"))
            break
        try:
            entry = _parsed(storage, number)
        except ArtifactError as error:
            problems.append(Problem(path, str(error), "audit"))
            break
        seal = entry.pop("seal", None)
        if not isinstance(seal, str) or not hmac.compare_digest(seal, _seal(key, entry)):
            problems.append(Problem(path, "its seal is not that of its content under the store's key", "audit"))
        if entry.get("sequence") != number:
            problems.append(Problem(path, f"it says that it is entry {entry.get('sequence')}", "audit"))
        if entry.get("previous") != previous:
            problems.append(Problem(path, "the entry before it is not the one it was written behind", "audit"))
        previous = sha256_hex(data)
    if last is not None and last not in seen:
        problems.append(Problem(_FOLDER, f"the entry with sha256 {last[:12]}… is missing", "audit"))
    return problems


def _numbers(storage: Storage) -> list[int]:
    stems = [name.removesuffix(".json") for name in storage.names(_FOLDER) if name.endswith(".json")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def _parsed(storage: Storage, number: int) -> dict[str, Any]:
    path = entry_path(number)
    try:
        entry = json.loads(storage.read(path))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{storage.uri_of(path)} is not JSON: {error}") from error
    if not isinstance(entry, dict) or entry.get("format") != 1:
        raise ArtifactError(f"{storage.uri_of(path)} is not an entry in format 1")
    return entry


def _seal(key: bytes, entry: dict[str, Any]) -> str:
    return hmac.new(key, b"audit\0" + canonical_json(entry), "sha256").hexdigest()
