import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from store.errors import SourceError
from store.sources import list_source, read_uri

SUFFIXES = frozenset({".jpg", ".png"})
PROJECT = Path(__file__).resolve().parents[2]


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(source: str, base: str) -> list[str]:
    return [photo.uri.removeprefix(f"{base}/") for photo in list_source(source, suffixes=SUFFIXES).photos]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["2023-x/b.jpg", "2024-x/c.jpg", "2024-x/deep/d.jpg", "a.jpg"]),
        ("2024-*", ["2024-x/c.jpg", "2024-x/deep/d.jpg"]),
        ("2024-*/", ["2024-x/c.jpg", "2024-x/deep/d.jpg"]),
        ("202[0-3]-*/*.jpg", ["2023-x/b.jpg"]),
        ("?.png", ["e.png"]),
    ],
)
def test_a_glob_names_photos_and_folders(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    fill(tmp_path, "a.jpg", "e.png", "2023-x/b.jpg", "2024-x/c.jpg", "2024-x/deep/d.jpg", ".hidden/f.jpg")
    assert names(f"{tmp_path}/{pattern}", str(tmp_path)) == wanted


def test_what_exists_under_its_own_name_is_no_glob(tmp_path: Path) -> None:
    fill(tmp_path, "[2024]/a.jpg", "2/b.jpg")
    assert names(f"{tmp_path}/[2024]", str(tmp_path)) == ["[2024]/a.jpg"]
    assert names(f"{tmp_path}/[2]", str(tmp_path)) == ["2/b.jpg"]


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match=r"\*.png is empty"):
        list_source(f"{tmp_path}/*.png", suffixes=SUFFIXES)
    with pytest.raises(SourceError, match="does not exist"):
        list_source(f"{tmp_path}/none/*.png", suffixes=SUFFIXES)


def test_a_glob_on_s3(s3: str) -> None:
    fs = fsspec.filesystem("s3")
    for name in ("a.jpg", "2024-x/b.jpg", "2024-x/deep/c.jpg", "2023-x/d.jpg", "2024-x/n.txt"):
        fs.pipe_file(f"{s3.removeprefix('s3://')}/{name}", name.encode())
    assert names(f"{s3}/2024-*/**/*.jpg", s3) == ["2024-x/b.jpg", "2024-x/deep/c.jpg"]
    assert names(f"{s3}/*.jpg", s3) == ["a.jpg"]


def test_another_file_system_is_listed_and_read_by_its_url() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/photos/x/a.jpg", b"one")
    fs.pipe_file("/photos/b.png", b"three")
    found = list_source("memory://photos", suffixes=SUFFIXES)
    assert [(photo.uri, photo.size) for photo in found.photos] == [
        ("memory:///photos/b.png", 5),
        ("memory:///photos/x/a.jpg", 3),
    ]
    assert read_uri(found.photos[0].uri, max_bytes=100) == b"three"
    fs.rm("/photos", recursive=True)


def test_a_file_url_is_the_path_it_names(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    assert list_source(f"file://{tmp_path}", suffixes=SUFFIXES) == list_source(str(tmp_path), suffixes=SUFFIXES)


def test_a_file_system_without_its_driver_says_which_one_is_missing() -> None:
    with pytest.raises(SourceError, match=r"cannot be listed .*(gcsfs|nosuch)"):
        list_source("gs://bucket/photos", suffixes=SUFFIXES)


def test_a_web_address_itself_is_no_source() -> None:
    with pytest.raises(SourceError, match=r"name web addresses in a list"):
        list_source("https://h.example/a.jpg", suffixes=SUFFIXES)


def test_a_pipe_that_takes_a_photos_place_is_not_waited_for(tmp_path: Path) -> None:
    """The twin opens it as anybody would, and waits."""
    code = f"import os; os.mkfifo({str(tmp_path / 'p.jpg')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
    with pytest.raises(OSError, match=r"is no regular file"):
        read_uri(str(tmp_path / "p.jpg"), max_bytes=10)
    plain = [sys.executable, "-c", f"open({str(tmp_path / 'p.jpg')!r}, 'rb').read()"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(plain, check=True, timeout=2)
