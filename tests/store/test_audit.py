import json
from pathlib import Path

import pytest

from store.audit import add_entry, entry_path, read_entries, verify_audit
from store.forgotten import add_forgotten, forgotten_key, tag
from store.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    for n in range(3):
        add_entry(storage, kind="photo", tags=[tag(forgotten_key(storage), "photo", f"{n}")], facts={"photos": n})
    return storage


def test_entries_are_numbered_chained_and_hold_what_was_said(storage: Storage) -> None:
    assert verify_audit(storage) == []
    entries = read_entries(storage)
    assert [(e["sequence"], e["photos"], e["forgotten"]) for e in entries] == [
        (1, 0, "photo"),
        (2, 1, "photo"),
        (3, 2, "photo"),
    ]
    last = add_entry(storage, kind="face", tags=[], facts={})
    assert verify_audit(storage, last=last) == []


def test_a_store_that_forgot_nobody_has_no_record_and_no_problem(tmp_path: Path) -> None:
    assert verify_audit(Storage(tmp_path)) == []
    assert not (tmp_path / "forgotten").exists()


def changed(storage: Storage, number: int, **keys: object) -> None:
    document = json.loads(storage.read(entry_path(number)))
    storage.write(entry_path(number), json.dumps(document | keys).encode())


def test_a_changed_entry_is_noticed(storage: Storage) -> None:
    changed(storage, 2, photos=7)
    paths = [p.path for p in verify_audit(storage)]
    assert paths == ["audit/000002.json", "audit/000003.json"]  # its seal, and the hash behind it


def test_a_change_of_the_last_entry_is_noticed_by_its_seal(storage: Storage) -> None:
    changed(storage, 3, photos=7)
    (problem,) = verify_audit(storage)
    assert "its seal is not that of its content" in problem.sentence


def test_an_entry_that_was_removed_is_noticed(storage: Storage) -> None:
    storage.remove(entry_path(2))
    (problem,) = verify_audit(storage)
    assert "entry 2 is missing" in problem.sentence


def test_entries_that_changed_places_are_noticed(storage: Storage) -> None:
    second, third = storage.read(entry_path(2)), storage.read(entry_path(3))
    storage.write(entry_path(2), third)
    storage.write(entry_path(3), second)
    assert {p.path for p in verify_audit(storage)} == {"audit/000002.json", "audit/000003.json"}


def test_entries_taken_off_the_end_are_noticed_by_whoever_kept_the_last_hash(storage: Storage) -> None:
    last = add_entry(storage, kind="face", tags=[], facts={})
    storage.remove(entry_path(4))
    assert verify_audit(storage) == []
    (problem,) = verify_audit(storage, last=last)
    assert "is missing" in problem.sentence


def test_an_entry_that_is_no_json_is_noticed(storage: Storage) -> None:
    storage.write(entry_path(3), b"{")
    (problem,) = verify_audit(storage)
    assert "is not JSON" in problem.sentence


def test_an_entry_made_without_the_key_is_noticed(storage: Storage) -> None:
    add_forgotten(storage, [])
    other = Storage(Path(storage.uri).parent / "other")
    for n in range(4):
        add_entry(other, kind="photo", tags=[], facts={"photos": n})
    storage.write(entry_path(4), other.read(entry_path(4)))
    assert {p.path for p in verify_audit(storage)} == {"audit/000004.json"}
