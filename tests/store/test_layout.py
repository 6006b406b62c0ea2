from pathlib import Path

import pytest

from store import layout
from store.errors import StoreError
from store.layout import open_store


def test_a_missing_or_empty_folder_becomes_a_store_only_when_asked(tmp_path: Path) -> None:
    uri = str(tmp_path / "store")
    with pytest.raises(StoreError, match=r"there is no store at .*/store: run `lookalike build SOURCE"):
        open_store(uri)
    open_store(uri, create=True)
    assert open_store(uri).uri == uri


def test_a_folder_with_hidden_files_only_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    assert "runs" in open_store(str(tmp_path), create=True).names()


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(StoreError, match=r"is not a store: it holds holiday.jpg; give an empty folder"):
        open_store(str(tmp_path), create=True)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StoreError, match=r"the store .*/x is a file: give a folder"):
        open_store(str(tmp_path / "x"), create=True)


def test_a_url_that_is_not_of_s3_is_no_store() -> None:
    with pytest.raises(StoreError, match=r"nosuchprotocol://x/y cannot be a store: give a folder or an s3:// prefix"):
        open_store("nosuchprotocol://x/y")


def test_paths_are_those_of_format_1() -> None:
    assert layout.photos_path("c", "s") == "photos/c/s.parquet"
    assert layout.faces_path("c", "s") == "faces/c/s.parquet"
    assert layout.embeddings_path("e", "s") == "embeddings/e/s.parquet"
    assert layout.encoder_folder("e") == "encoders/e"
    assert layout.version_folder(7) == "versions/000007"
    assert layout.CURRENT == "versions/CURRENT"
    assert layout.ENCODER_CURRENT == "encoders/CURRENT"
