import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.errors import ArtifactError
from store.fingerprints import fingerprint
from store.forgotten import add_forgotten, forgotten_key, read_forgotten, spot_of, spots_around, tag
from store.layout import FORGOTTEN_KEY, FORGOTTEN_TAGS
from store.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def test_a_store_where_nothing_was_forgotten_has_no_key_and_knows_nothing(storage: Storage) -> None:
    forgotten = read_forgotten(storage)
    assert not forgotten
    assert not forgotten.has("photo", "a" * 64)
    assert storage.names() == []


def test_what_was_forgotten_is_known_by_its_kind_and_only_under_the_store_s_key(storage: Storage) -> None:
    key = forgotten_key(storage)
    add_forgotten(storage, [tag(key, "photo", "a" * 64)])
    again = read_forgotten(storage)
    assert again
    assert again.has("photo", "a" * 64)
    assert not again.has("face", "a" * 64)
    assert not again.has("photo", "b" * 64)
    assert b"a" * 8 not in storage.read(FORGOTTEN_TAGS)
    other = Storage(storage.uri + "/other")
    assert tag(forgotten_key(other), "photo", "a" * 64) not in again.tags


def test_of_racing_additions_none_is_lost(storage: Storage) -> None:
    start = threading.Barrier(8)

    def add(number: int) -> None:
        mine = Storage(storage.uri)
        start.wait()
        add_forgotten(mine, [tag(forgotten_key(mine), "face", str(number))])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    forgotten = read_forgotten(storage)
    assert all(forgotten.has("face", str(number)) for number in range(8))
    before = storage.read(FORGOTTEN_TAGS)
    add_forgotten(storage, forgotten.tags)
    assert storage.read(FORGOTTEN_TAGS) == before


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": 2, "tags": []}', b'{"format": 1, "tags": ["short"]}'])
def test_tags_that_are_none_are_refused_and_never_read_as_empty(storage: Storage, text: bytes) -> None:
    key = forgotten_key(storage)
    storage.write(FORGOTTEN_TAGS, text)
    with pytest.raises(ArtifactError, match=r"forgotten/tags\.json is not .*; restore it from a copy"):
        read_forgotten(storage)
    with pytest.raises(ArtifactError):
        add_forgotten(storage, [tag(key, "photo", "a" * 64)])
    assert storage.read(FORGOTTEN_TAGS) == text


def test_tags_without_their_key_are_refused(storage: Storage) -> None:
    add_forgotten(storage, [tag(forgotten_key(storage), "photo", "a" * 64)])
    storage.write(FORGOTTEN_KEY, b"not a key")
    with pytest.raises(ArtifactError, match=r"forgotten/key is not a key of 64 hex digits"):
        read_forgotten(storage)
    storage.remove(FORGOTTEN_KEY)
    with pytest.raises(ArtifactError, match=r"forgotten/key is missing"):
        read_forgotten(storage)


def test_a_face_found_a_little_elsewhere_is_at_a_forgotten_spot_and_one_far_away_is_not(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    key, sha256 = forgotten_key(storage), "ab" * 32
    forgotten = add_forgotten(storage, (tag(key, "spot", s) for s in spots_around(sha256, (40, 40, 80, 80))))
    moved = {"face_id": 1, "photo_sha256": sha256, "box": (43, 37, 86, 79)}
    assert forgotten.has_face(moved)
    assert not forgotten.has_face(moved | {"box": (140, 40, 180, 80)})
    assert not forgotten.has_face(moved | {"photo_sha256": "cd" * 32})
    assert forgotten.has("spot", spot_of(sha256, (40, 40, 80, 80)))


def test_a_photo_is_known_by_its_bytes_or_by_how_it_was_listed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    key = forgotten_key(storage)
    listed = fingerprint("/a.jpg", size=3, etag=None, mtime_ns=7)
    forgotten = add_forgotten(storage, [tag(key, "photo", "ab" * 32), tag(key, "listed", listed)])
    row = {"uri": "/a.jpg", "photo_sha256": None, "size": 3, "etag": None, "mtime_ns": 7}
    assert forgotten.has_photo(row)
    assert forgotten.has_photo({"bytes": 3} | {k: v for k, v in row.items() if k != "size"})
    assert not forgotten.has_photo(row | {"mtime_ns": 8})
    assert forgotten.has_photo(row | {"mtime_ns": 8, "photo_sha256": "ab" * 32})
