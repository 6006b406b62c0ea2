import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import verified_files
from store.errors import ArtifactError, StoreError
from store.fingerprints import sha256_hex
from store.storage import Storage
from store.verified_files import cache_folder, is_noted, note, purge_files, verified_file

DATA = bytes(range(256)) * 100
SHA256 = sha256_hex(DATA)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path / "store")
    storage.write("a", DATA)
    return storage


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a file of this machine is hashed."""
    counted: list[int] = []
    real = verified_files._hash

    def count(pieces: Iterator[bytes]) -> str:
        counted.append(1)
        return real(pieces)

    monkeypatch.setattr(verified_files, "_hash", count)
    return counted


def opened(storage: Storage, path: str = "a") -> Path:
    return verified_file(storage, path, sha256=SHA256, size=len(DATA))


def test_a_local_file_is_hashed_once_and_used_where_it_lies(storage: Storage, hashed: list[int]) -> None:
    for _ in range(3):
        assert opened(storage) == Path(storage.uri) / "a"
    assert len(hashed) == 1


def other_inode(path: Path) -> None:
    shutil.copy2(path, f"{path}.new")
    os.replace(f"{path}.new", path)


def other_time(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [other_inode, other_time])
def test_it_is_hashed_again_when_inode_or_time_changes(storage: Storage, hashed: list[int], change: Any) -> None:
    opened(storage)
    change(Path(storage.uri) / "a")
    opened(storage)
    opened(storage)
    assert len(hashed) == 2


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_a_file_that_is_not_what_it_was_is_refused_every_time(storage: Storage, data: bytes) -> None:
    opened(storage)
    (Path(storage.uri) / "a").write_bytes(data)
    for _ in range(2):
        with pytest.raises(ArtifactError, match="/a has changed: its sha256 is .*, recorded was .*; it is not used"):
            opened(storage)


def test_a_file_that_is_not_there_is_refused(storage: Storage) -> None:
    with pytest.raises(ArtifactError, match="/b is missing from the store"):
        opened(storage, "b")


def test_a_cache_that_cannot_be_written_only_forgets(storage: Storage, hashed: list[int], cache: Path) -> None:
    cache.write_text("a file, where a folder should be")
    opened(storage)
    opened(storage)
    assert len(hashed) == 2


def test_what_is_noted_of_bytes_is_known_until_they_are_purged(storage: Storage) -> None:
    assert not is_noted(SHA256, "opens")
    note(SHA256, "opens")
    assert is_noted(SHA256, "opens")
    purge_files([SHA256, "0" * 64])
    assert not is_noted(SHA256, "opens")


# On S3


@pytest.fixture
def remote(s3: str) -> Storage:
    storage = Storage(f"{s3}/store")
    storage.write("a", DATA)
    return storage


def test_an_object_is_downloaded_once_and_stays_when_it_is_gone_there(remote: Storage) -> None:
    kept = opened(remote)
    assert kept.read_bytes() == DATA
    assert kept.parent == cache_folder() / "files"
    remote.remove("a")
    assert opened(remote) == kept
    assert [p.name for p in kept.parent.iterdir()] == [SHA256]


def test_a_downloaded_file_that_was_damaged_here_is_brought_again(remote: Storage) -> None:
    kept = opened(remote)
    kept.write_bytes(DATA[:-1] + b"x")
    assert opened(remote).read_bytes() == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x" * 10**6, b""])
def test_an_object_of_another_hash_is_refused_and_nothing_of_it_is_kept(remote: Storage, data: bytes) -> None:
    remote.write("a", data)
    with pytest.raises(ArtifactError, match=r"s3://faces/.*/a has changed: its sha256 is"):
        opened(remote)
    assert list((cache_folder() / "files").iterdir()) == []
    remote.remove("a")
    with pytest.raises(ArtifactError, match="/a is missing from the store"):
        opened(remote)


def test_where_nothing_can_be_kept_a_sentence_says_what_to_do(remote: Storage, cache: Path) -> None:
    cache.write_text("a file, where a folder should be")
    with pytest.raises(StoreError, match="make room, or set LOOKALIKE_CACHE to a folder you may write to"):
        opened(remote)


def test_readers_that_come_at_once_all_get_it(remote: Storage) -> None:
    start, got = threading.Barrier(4), []

    def read() -> None:
        start.wait()
        got.append(opened(Storage(remote.uri)).read_bytes() == DATA)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert got == [True] * 4
    assert [p.name for p in (cache_folder() / "files").iterdir()] == [SHA256]


def test_purging_removes_the_bytes_and_who_has_them_open_keeps_them(remote: Storage) -> None:
    with opened(remote).open("rb") as file:
        purge_files([SHA256])
        assert list((cache_folder() / "files").iterdir()) == []
        assert file.read() == DATA


def test_files_that_nobody_uses_go_and_so_do_all_but_the_last_eight(remote: Storage) -> None:
    files, checked = cache_folder() / "files", cache_folder() / "checked"
    opened(remote)
    now = time.time()
    names = [f"{n:064x}" for n in range(12)]
    for n, name in enumerate(names):  # the first ones were used last
        (files / name).write_bytes(b"x")
        note(name, "used")
        os.utime(checked / name / "used", (now - 60 * (n + 1), now - 60 * (n + 1)))
    note("f" * 64, "used")
    os.utime(checked / ("f" * 64) / "used", (now - 31 * 86_400,) * 2)
    (files / ".coming-dead").write_bytes(b"half")
    os.utime(files / ".coming-dead", (now - 2 * 86_400,) * 2)
    (files / ".coming-alive").write_bytes(b"half")
    for name, age_s in (("making-dead", 2 * 86_400), ("making-alive", 60)):
        (cache_folder() / name).mkdir()
        (cache_folder() / name / "codes").write_bytes(b"half an index")
        os.utime(cache_folder() / name, (now - age_s,) * 2)
    (files / SHA256).unlink()
    opened(remote)
    assert [p.name for p in cache_folder().glob("making-*")] == ["making-alive"]
    assert {p.name for p in files.iterdir()} == {SHA256, ".coming-alive", *names[:7]}
    assert not (checked / ("f" * 64)).exists()


def test_without_the_check_a_damaged_file_would_be_used(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(storage.uri) / "a").write_bytes(b"other")
    monkeypatch.setattr(verified_files, "_check", lambda *_, **__: None)
    assert opened(storage).read_bytes() == b"other"
