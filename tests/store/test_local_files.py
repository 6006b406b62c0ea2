"""What a folder of this machine promises: names flushed down to the first folder that was there, folders removed in a safe order."""

import os
from pathlib import Path

import pytest

from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "made" / "store")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every fsync, link, rename and unlink with the path it was of, in their order."""
    seen: list[tuple[str, str]] = []
    fsync, link, replace, unlink = os.fsync, os.link, os.replace, os.unlink

    def fsynced(descriptor: int) -> None:
        seen.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def linked(source: Path, target: Path) -> None:
        seen.append(("link", str(target)))
        link(source, target)

    def replaced(source: Path, target: Path) -> None:
        seen.append(("rename", str(target)))
        replace(source, target)

    def unlinked(path: Path, **kwargs: int | None) -> None:
        seen.append(("unlink", str(path)))
        unlink(path, **kwargs)

    for name, call in {"fsync": fsynced, "link": linked, "replace": replaced, "unlink": unlinked}.items():
        monkeypatch.setattr(os, name, call)
    return seen


@pytest.mark.parametrize("verb", ["write", "create"])
def test_a_file_and_every_new_folder_above_it_are_flushed(
    storage: Storage, calls: list[tuple[str, str]], tmp_path: Path, verb: str
) -> None:
    getattr(storage, verb)("a/b/c", b"1")
    root = tmp_path / "made" / "store"
    placed = calls.index(("link" if verb == "create" else "rename", str(root / "a" / "b" / "c")))
    flushed_before = {path for what, path in calls[:placed] if what == "fsync"}
    assert {str(tmp_path), str(tmp_path / "made"), str(root), str(root / "a")} <= flushed_before
    assert any(path.startswith(str(root / "runs" / "staging")) for path in flushed_before)
    assert calls[placed + 1] == ("fsync", str(root / "a" / "b"))
    assert str(tmp_path.parent) not in {path for what, path in calls if what == "fsync"}


def test_folders_that_another_process_made_are_flushed_once(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    (tmp_path / "store" / "a" / "b").mkdir(parents=True)
    storage = Storage(tmp_path / "store")
    storage.write("a/b/c", b"1")
    flushed = [path for what, path in calls if what == "fsync"]
    assert str(tmp_path / "store" / "a") in flushed
    assert str(tmp_path / "store") in flushed
    assert str(tmp_path) not in flushed, "the store itself was there before lookalike came"
    calls.clear()
    storage.write("a/b/d", b"2")
    assert [path for what, path in calls if what == "fsync"][1:] == [str(tmp_path / "store" / "a" / "b")]


def test_a_create_that_comes_second_flushes_what_the_first_made(storage: Storage, calls: list[tuple[str, str]]) -> None:
    storage.create("a", b"1")
    calls.clear()
    assert not storage.create("a", b"2")
    assert ("fsync", str(storage.local_path(""))) in calls


def test_of_a_folder_the_manifest_goes_first_and_is_flushed(storage: Storage, calls: list[tuple[str, str]]) -> None:
    for name in ("a", "manifest.json", "sub/z"):
        storage.write(f"versions/000001/{name}", b"")
    calls.clear()
    storage.remove("versions/000001")
    folder = f"{storage.uri}/versions/000001"
    assert calls[0] == ("unlink", f"{folder}/manifest.json")
    flushed = calls.index(("fsync", folder))
    assert all(("unlink", f"{folder}/{name}") in calls[flushed:] for name in ("a", "sub/z"))
    assert calls[-1] == ("fsync", f"{storage.uri}/versions")
    assert storage.names("versions") == []
    storage.remove("versions/000001")


def test_a_link_in_a_folder_is_removed_and_not_followed(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "kept").write_text("")
    storage.write("a/b", b"")
    (tmp_path / "made" / "store" / "a" / "link").symlink_to(tmp_path / "theirs")
    storage.remove("a")
    assert (tmp_path / "theirs" / "kept").exists()
    assert not storage.exists("a")


def test_large_files_are_copied_whole_or_not_at_all(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "up").write_bytes(b"0123456789" * 300_000)
    storage.upload("large", tmp_path / "up")
    storage.copy("large", "sub/second")
    assert storage.size("large") == 3_000_000
    assert storage.read_range("sub/second", 5, 15) == b"5678901234"
    assert storage.read_range("large", 2_999_998, 3_000_009) == b"89"
    assert b"".join(storage.chunks("large", chunk_bytes=999)) == (tmp_path / "up").read_bytes()
    storage.download("large", tmp_path / "down", sha256=sha256_hex((tmp_path / "up").read_bytes()))
    with pytest.raises(ArtifactError, match="has changed"):
        storage.download("large", tmp_path / "down", sha256="0" * 64)
    assert not (tmp_path / "down").exists()
    for missing in (
        storage.size,
        storage.chunks,
        lambda p: storage.copy(p, "x"),
        lambda p: storage.read_range(p, 0, 1),
    ):
        with pytest.raises(ArtifactError, match="/nowhere is missing from the store"):
            list(missing("nowhere") or [])  # type: ignore[call-overload]

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        storage.upload("large", tmp_path / "up")
    monkeypatch.undo()
    assert storage.size("large") == 3_000_000
    assert storage.names("runs/staging") == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "up"]


def test_a_stamp_and_a_time_tell_of_change(storage: Storage) -> None:
    assert storage.stamp("a") is None
    assert storage.modified_s("a") is None
    storage.write("a", b"one")
    first = storage.stamp("a")
    assert storage.stamp("a") == first
    storage.write("a", b"two")
    assert storage.stamp("a") != first
    assert storage.modified_s("a") is not None


def test_a_folder_that_cannot_be_flushed_is_told(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write("a", b"1")
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        storage.write("a", b"2")
