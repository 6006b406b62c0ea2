import os
from pathlib import Path

import pytest

from store.errors import QueryError, SourceError
from store.sources import check_source, list_source, read_asked, read_uri

SUFFIXES = frozenset({".jpg", ".png"})


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def listed(source: Path | str, store: Path | None = None) -> list[str]:
    """What is listed, relative to the folder."""
    found = list_source(str(source), suffixes=SUFFIXES, store_uri=str(store) if store else None)
    return [os.path.relpath(p.uri, found.source) for p in found.photos]


def test_photos_are_listed_with_size_and_time_by_rising_uri(tmp_path: Path) -> None:
    fill(tmp_path, "b.jpg", "a/z.png", "a/b/c.jpg")
    os.utime(tmp_path / "b.jpg", ns=(1, 1_700_000_000_123_456_789))
    found = list_source(f"{tmp_path}/", suffixes=SUFFIXES)
    assert found.source == str(tmp_path)
    assert [p.uri for p in found.photos] == [f"{tmp_path}/a/b/c.jpg", f"{tmp_path}/a/z.png", f"{tmp_path}/b.jpg"]
    last = found.photos[-1]
    assert (last.size, last.etag, last.mtime_ns) == (5, None, 1_700_000_000_123_456_789)


def test_suffixes_count_in_any_case_and_other_files_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "a.JPG", "b.Jpg", "c.jpeg", "notes.md", "jpg")
    found = list_source(str(tmp_path), suffixes=SUFFIXES)
    assert [os.path.basename(p.uri) for p in found.photos] == ["a.JPG", "b.Jpg"]
    assert found.ignored == 3


def test_hidden_files_and_folders_are_passed_over_and_not_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", ".b.jpg", ".cache/c.jpg", "d/.e/f.jpg")
    found = list_source(str(tmp_path), suffixes=SUFFIXES)
    assert [p.uri for p in found.photos] == [f"{tmp_path}/a.jpg"]
    assert found.ignored == 0


def test_a_source_in_a_hidden_folder_is_listed(tmp_path: Path) -> None:
    fill(tmp_path, ".hidden/a.jpg")
    assert listed(tmp_path / ".hidden") == ["a.jpg"]


def test_the_store_inside_the_source_is_passed_over_whatever_way_leads_to_it(tmp_path: Path) -> None:
    fill(tmp_path, "photos/a.jpg", "photos/store/runs/b.jpg", "photos/store2/c.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for source in (tmp_path / "photos", tmp_path / "link"):
        for store in (tmp_path / "photos" / "store", tmp_path / "link" / "store"):
            assert listed(source, store) == ["a.jpg", "store2/c.jpg"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    fill(tmp_path, "in/a.jpg", "out/b.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to(tmp_path / "out" / "b.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "out")
    assert listed(tmp_path / "in") == ["a.jpg", "c.jpg"]


def test_a_link_to_nothing_is_no_file_and_one_to_itself_is_a_photo_that_will_fail(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    found = list_source(str(tmp_path), suffixes=SUFFIXES)
    assert [(os.path.basename(p.uri), p.size) for p in found.photos] == [("a.jpg", 5), ("self.jpg", 0)]


@pytest.mark.timeout(30)
def test_a_pipe_is_no_photo_and_is_never_waited_for(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert listed(tmp_path) == ["a.jpg"]
    with pytest.raises(OSError, match=r"pipe\.jpg is no regular file"):
        read_uri(f"{tmp_path}/pipe.jpg", max_bytes=10)


def test_names_that_are_no_utf8_are_listed_as_text_and_read_back(tmp_path: Path) -> None:
    names = [b"\xff.jpg", b"\xe9t\xe9.jpg", "été.jpg".encode(), b"50%.jpg", b"%41.jpg"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    found = list_source(str(tmp_path), suffixes=SUFFIXES)
    uris = [p.uri for p in found.photos]
    "".join(uris).encode()  # text
    assert {read_uri(uri, max_bytes=100) for uri in uris} == set(names)
    assert f"{tmp_path}/%FF.jpg" in uris


def test_two_files_that_would_share_a_uri_are_refused_rather_than_one_lost(tmp_path: Path) -> None:
    fill(tmp_path, "%FF.jpg")
    with open(os.fsencode(tmp_path) + b"/\xff.jpg", "wb"):
        pass
    with pytest.raises(SourceError, match=r"two files have the uri .*/%FF\.jpg, .*: rename one"):
        listed(tmp_path)


@pytest.mark.parametrize("name", ["who?.jpg", "a::b.jpg", "a#b.jpg", "a b.jpg", "*.jpg", "a\nb.jpg"])
def test_a_photo_may_have_any_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name)
    assert listed(tmp_path) == [name]
    assert read_uri(str(tmp_path / name), max_bytes=100) == name.encode()


def test_a_folder_that_cannot_be_listed_is_refused_because_its_photos_would_count_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.jpg", "private/b.jpg")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SourceError, match=r"/private cannot be listed \(PermissionError: Permission denied\)"):
        listed(tmp_path)


def test_a_missing_an_empty_and_a_source_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the source .*/nowhere does not exist: give a folder of photos"):
        listed(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=rf"the source {tmp_path} is empty: give a folder"):
        listed(tmp_path)
    fill(tmp_path, "a.txt", "b.md")
    with pytest.raises(SourceError, match=r"holds 2 files but no photo: wanted one of \.jpg \.png"):
        listed(tmp_path)
    with pytest.raises(SourceError, match=r"the source .*/b.md is a file: give a folder"):
        listed(tmp_path / "b.md")
    with pytest.raises(SourceError, match=r"nosuch://x/y cannot be listed \(ValueError: Protocol not known"):
        listed("nosuch://x/y")


def test_checking_a_source_looks_no_further_than_the_first_photo(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    check_source(str(tmp_path), suffixes=SUFFIXES)
    check_source("s3://not-looked-at/x", suffixes=SUFFIXES)
    with pytest.raises(SourceError, match="does not exist"):
        check_source(f"{tmp_path}/nowhere", suffixes=SUFFIXES)
    os.rename(tmp_path / "a.jpg", tmp_path / "a.md")
    with pytest.raises(SourceError, match="holds 1 files but no photo"):
        check_source(str(tmp_path), suffixes=SUFFIXES)


def test_a_list_names_photos_a_line_with_comments_and_paths_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "in/a.jpg", "in/sub/b.jpg", "out/c.jpg", "d.jpg")
    os.utime(tmp_path / "d.jpg", ns=(1, 1_700_000_000_123_456_789))
    monkeypatch.setenv("HOME", str(tmp_path))
    lines = ["# photos", "", "a.jpg", "  sub/b.jpg \r", "../out/c.jpg", "~/d.jpg", f"{tmp_path}/in/a.jpg", "notes.md"]
    (tmp_path / "in" / "list.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    monkeypatch.chdir("/")
    found = list_source(f"{tmp_path}/in/list.txt", suffixes=SUFFIXES)
    assert found.source == f"{tmp_path}/in/list.txt"
    assert [os.path.relpath(p.uri, tmp_path) for p in found.photos] == [
        "d.jpg",
        "in/a.jpg",
        "in/sub/b.jpg",
        "out/c.jpg",
    ]
    assert found.photos[0].mtime_ns == 1_700_000_000_123_456_789
    assert [p.size for p in found.photos] == [5, 8, 12, 9]
    assert found.ignored == 1


def test_a_listed_photo_that_is_missing_stays_in_the_list_and_fails_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\ngone.jpg\nnosuch://x/y.jpg\nfolder.jpg\n")
    (tmp_path / "folder.jpg").mkdir()
    found = list_source(f"{tmp_path}/list.txt", suffixes=SUFFIXES)
    missing = [p for p in found.photos if p.size == 0]
    assert [os.path.basename(p.uri) for p in missing] == ["folder.jpg", "gone.jpg", "y.jpg"]
    for photo, error in zip(missing, (IsADirectoryError, FileNotFoundError, ValueError), strict=True):
        with pytest.raises(error, match=r"."):
            read_uri(photo.uri, max_bytes=10)


def test_a_list_that_is_missing_or_no_text_is_refused_and_a_folder_of_that_name_is_listed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the list .*/no.txt cannot be read \(FileNotFoundError"):
        listed(tmp_path / "no.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"the list .*/bytes.txt cannot be read \(it is no UTF-8"):
        listed(tmp_path / "bytes.txt")
    (tmp_path / "only.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match=r"only.txt is empty"):
        listed(tmp_path / "only.txt")
    fill(tmp_path, "folder.txt/a.jpg")
    assert listed(tmp_path / "folder.txt") == ["a.jpg"]


def test_read_uri_reads_one_byte_more_than_allowed_and_not_all(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 100)
    assert len(read_uri(f"{tmp_path}/a.jpg", max_bytes=100)) == 100
    assert len(read_uri(f"{tmp_path}/a.jpg", max_bytes=10)) == 11


def test_read_asked_says_why_a_picture_cannot_be_read(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    assert read_asked(f"{tmp_path}/./a.jpg", max_bytes=100) == b"a.jpg"
    with pytest.raises(QueryError, match=r"/b.jpg does not exist: give the path or url of a photo"):
        read_asked(f"{tmp_path}/b.jpg", max_bytes=100)
    with pytest.raises(QueryError, match=rf"{tmp_path} is a folder: give the path or url of one photo"):
        read_asked(str(tmp_path), max_bytes=100)
    with pytest.raises(QueryError, match=r"nosuch://x cannot be read \(ValueError: Protocol not known"):
        read_asked("nosuch://x", max_bytes=100)
