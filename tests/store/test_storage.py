import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from store.errors import ArtifactError, StoreError
from store.fingerprints import sha256_hex
from store.storage import Storage, decode_path, encode_path, is_local, normalise_uri


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "store")


def race(call: Callable[[int], bool], *, racers: int = 8) -> list[bool]:
    start = threading.Barrier(racers)

    def one(n: int) -> bool:
        start.wait()
        return call(n)

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(one, range(racers)))


def staged(storage: Storage) -> list[str]:
    return storage.names("runs/staging")


@pytest.mark.parametrize("attempt", range(5))
def test_of_eight_racing_creates_one_wins_and_its_bytes_stand(storage: Storage, attempt: int) -> None:
    made = race(lambda n: storage.create(f"a/{attempt}", bytes([n]) * 10_000))
    assert sum(made) == 1
    assert storage.read(f"a/{attempt}") == bytes([made.index(True)]) * 10_000
    assert staged(storage) == []


@pytest.mark.parametrize("attempt", range(5))
def test_of_eight_racing_swaps_one_wins_and_its_bytes_stand(storage: Storage, attempt: int) -> None:
    storage.write(f"a/{attempt}", b"before")
    made = race(lambda n: storage.swap(f"a/{attempt}", b"%d" % n, expected=b"before"))
    assert sum(made) == 1
    assert storage.read(f"a/{attempt}") == b"%d" % made.index(True)


def test_swap_leaves_a_file_that_holds_something_else(storage: Storage) -> None:
    storage.write("a", b"theirs")
    assert not storage.swap("a", b"mine", expected=b"before")
    assert not storage.swap("a", b"mine", expected=None)
    assert not storage.swap("missing", b"mine", expected=b"before")
    assert storage.read("a") == b"theirs"
    assert not storage.exists("missing")


def test_swap_from_nothing_makes_the_file(storage: Storage) -> None:
    assert storage.swap("a", b"mine", expected=None)
    assert storage.read("a") == b"mine"


def test_create_leaves_a_file_that_is_there(storage: Storage) -> None:
    storage.write("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"


def test_write_replaces_the_whole_file(storage: Storage) -> None:
    storage.write("a/b", b"a long first text")
    storage.write("a/b", b"short")
    assert storage.read("a/b") == b"short"
    assert staged(storage) == []


@pytest.mark.parametrize(
    ("verb", "broken"), [("write", "fsync"), ("write", "replace"), ("create", "fsync"), ("create", "link")]
)
def test_a_failed_write_leaves_what_was_there_and_nothing_staged(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, verb: str, broken: str
) -> None:
    storage.write("old", b"old")

    def full(*_: object) -> None:
        raise OSError("no space left")

    path = "old" if verb == "write" else "new"
    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="no space left"):
        getattr(storage, verb)(path, b"new bytes")
    monkeypatch.undo()
    assert storage.read("old") == b"old"
    assert not storage.exists("new")
    assert staged(storage) == []


def test_read_refuses_bytes_of_another_hash(storage: Storage) -> None:
    storage.write("a", b"one")
    assert storage.read("a", sha256=sha256_hex(b"one")) == b"one"
    storage.write("a", b"two")
    with pytest.raises(ArtifactError, match=r"/a has changed: its sha256 is \w{12}…, recorded was \w{12}…"):
        storage.read("a", sha256=sha256_hex(b"one"))


def test_read_says_what_is_missing(storage: Storage) -> None:
    with pytest.raises(ArtifactError, match=r"/store/a/b is missing from the store; build again"):
        storage.read("a/b")


def test_names_are_sorted_and_a_missing_folder_has_none(storage: Storage) -> None:
    for path in ("x/b", "x/a", "x/c/d"):
        storage.write(path, b"")
    assert storage.names("x") == ["a", "b", "c"]
    assert storage.names("nowhere") == []


def test_names_of_a_file_are_refused(storage: Storage) -> None:
    storage.write("x", b"")
    with pytest.raises(NotADirectoryError, match="x"):
        storage.names("x")


def test_remove_takes_a_file_a_folder_or_nothing(storage: Storage) -> None:
    for path in ("x/b", "x/c/d", "y"):
        storage.write(path, b"")
    storage.remove("y")
    storage.remove("x")
    storage.remove("never there")
    assert not storage.exists("x/c/d")
    assert not storage.exists("y")


def test_uri_of_and_path_of_are_inverse_and_refuse_strangers(storage: Storage) -> None:
    assert storage.path_of(storage.uri_of("a/b")) == "a/b"
    with pytest.raises(ArtifactError, match="/elsewhere/a is not in the store"):
        storage.path_of("/elsewhere/a")


def test_check_writable_leaves_no_trace_and_refuses_a_folder_under_a_file(tmp_path: Path) -> None:
    good = Storage(tmp_path / "good")
    good.check_writable()
    assert [p for p in (tmp_path / "good").rglob("*") if p.is_file()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"the store .*/file/store cannot be written \(\w+: .*give a folder"):
        Storage(tmp_path / "file" / "store").check_writable()


def test_check_writable_refuses_a_file_system_that_cannot_be_written() -> None:
    with pytest.raises(StoreError, match=r"the store /proc/lookalike cannot be written"):
        Storage("/proc/lookalike").check_writable()


@pytest.mark.parametrize("name", ["a::b", "100%", "%41", "*[x]?", " blank ", "ä"])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    storage = Storage(tmp_path / name)
    storage.write("x/y", b"1")
    assert (tmp_path / name / "x" / "y").read_bytes() == b"1"
    assert storage.names() == ["runs", "x"]
    assert Storage(storage.uri).read("x/y") == b"1"
    storage.remove("x")
    assert not (tmp_path / name / "x").exists()


def test_a_store_whose_name_is_no_utf8_is_one_store(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff"
    Storage(os.fsdecode(raw)).write("x", b"1")
    assert os.path.exists(raw + b"/x")
    assert Storage(f"{tmp_path}/%FF").read("x") == b"1"


def test_two_spellings_of_a_path_are_one_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = f"{tmp_path}/a"
    spellings: list[Any] = [
        "a", "./a", "a/", "~/a", "b/../a", f"{tmp_path}/a/", f"file://{tmp_path}/a", f"/{tmp_path}/a", tmp_path / "a"
    ]  # fmt: skip
    assert [normalise_uri(s) for s in spellings] == [wanted] * len(spellings)


def test_a_url_loses_the_slash_at_its_end_only() -> None:
    assert normalise_uri("s3://bucket/a//b/") == "s3://bucket/a//b"
    assert not is_local("s3://bucket")
    assert is_local("file:///a")


@pytest.mark.parametrize(
    "raw", [b"a.jpg", b"\xff\xfe.jpg", "ä€.jpg".encode(), b"100%.jpg", b"x%20y.jpg", b"50%\xe9.jpg", b"a%20\xff.jpg"]
)
def test_paths_come_back_from_their_uris(tmp_path: Path, raw: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), raw)
    with open(path, "wb") as file:
        file.write(raw)
    uri = encode_path(os.fsdecode(path))
    uri.encode()  # it is text
    assert os.fsencode(decode_path(uri)) == path


def test_bytes_that_are_no_utf8_are_percent_encoded() -> None:
    assert encode_path("/a/ä\udcff.jpg") == "/a/ä%FF.jpg"


def test_a_file_named_like_an_encoded_one_keeps_its_name_when_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "A.jpg").write_bytes(b"somebody else's")
    (tmp_path / "Müller.jpg").write_bytes(b"somebody else's")
    for name in ("%41.jpg", "M%C3%BCller.jpg"):
        assert decode_path(f"{tmp_path}/{name}") == f"{tmp_path}/{name}"
