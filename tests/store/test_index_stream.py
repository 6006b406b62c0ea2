import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.index_choice import KINDS
from store.index_file import load_index
from store.index_search import SearchSettings, search
from store.index_stream import Spool, WrittenIndex
from store.index_train import train_index

Vectors = npt.NDArray[np.float32]
N, D, LISTS = 4_000, 32, 16


def unit(seed: int, n: int = N) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((n, D)) * np.linspace(2, 0.2, D)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))


def trained(kind: str) -> Any:
    return train_index(KINDS[kind](N, D, LISTS), unit(0))


def in_memory(empty: Any, vectors: Vectors) -> Any:
    index = faiss.IndexIDMap(faiss.clone_index(empty))
    index.add_with_ids(vectors, IDS[: len(vectors)])
    return index


def saved(index: Any, path: Path) -> WrittenIndex:
    faiss.write_index(index, str(path))
    data = path.read_bytes()
    return WrittenIndex(len(data), sha256_hex(data))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("faces", [N, 7])
def test_a_file_merged_from_blocks_is_what_faiss_writes_of_one_filled_in_memory(
    kind: str, faces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.index_stream._STRETCH_BYTES", 20_000)  # many stretches
    empty, vectors = trained(kind), unit(2, faces)
    with Spool(empty, IDS[:faces], tmp_path) as spool:
        for rows in np.array_split(np.random.default_rng(3).permutation(faces), 5):
            spool.add(rows, vectors[rows])
        written = spool.write(tmp_path / "index.faiss")
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]
    data = (tmp_path / "index.faiss").read_bytes()
    assert (written.bytes, written.sha256) == (len(data), sha256_hex(data))
    assert saved(in_memory(empty, vectors), tmp_path / "same").bytes == len(data)
    wanted = (tmp_path / "same").read_bytes()
    if "Refine" not in KINDS[kind](N, D, LISTS).key:
        assert data == wanted
    else:  # turning a block rounds otherwise than turning all at once
        everything = SearchSettings(nprobe=LISTS, refine=4)
        got, same = (
            search(load_index(one, where="x"), vectors[:200], k=5, settings=everything)[1] for one in (data, wanted)
        )
        assert np.mean(got == same) > 0.99


@pytest.mark.parametrize("kind", ["scan", "lists-rabitq"])
def test_one_block_turned_as_a_whole_gives_the_very_bytes(kind: str, tmp_path: Path) -> None:
    empty, vectors = trained(kind), unit(2, 4_000)
    with Spool(empty, IDS, tmp_path) as spool:
        spool.add(np.arange(N), vectors)
        written = spool.write(tmp_path / "index.faiss")
    assert written == saved(in_memory(empty, vectors), tmp_path / "same")


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_vector_that_is_none_is_refused_by_name(value: float, tmp_path: Path) -> None:
    vectors = unit(2, 5)
    vectors[3] = value
    with (
        Spool(trained("lists-sq8"), IDS[:5], tmp_path) as spool,
        pytest.raises(ArtifactError, match=rf"the embedding of face {IDS[3]} has length (nan|0), wanted 1"),
    ):
        spool.add(np.arange(5), vectors)
    assert list(tmp_path.iterdir()) == []


def test_faces_out_of_order_and_faces_that_are_missing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"face {IDS[0]} stands twice in the index or out of order"):
        Spool(trained("scan"), IDS[[1, 0, 2]], tmp_path)
    with Spool(trained("scan"), IDS[:5], tmp_path) as spool:
        spool.add(np.arange(4), unit(2, 4))
        with pytest.raises(ArtifactError, match="4 faces were added to an index of 5"):
            spool.write(tmp_path / "index.faiss")


def test_spooled_codes_that_were_cut_short_are_told_from_whole_ones(tmp_path: Path) -> None:
    with Spool(trained("scan"), IDS[:500], tmp_path) as spool:
        spool.add(np.arange(500), unit(2, 500))
        os.truncate(tmp_path / "finer", 100)
        with pytest.raises(ArtifactError, match="finer was shortened while an index was built; build again"):
            spool.write(tmp_path / "index.faiss")


def test_a_sample_smaller_than_the_lists_is_refused() -> None:
    with pytest.raises(ArtifactError, match="IVF16,SQ8 wants at least 16 faces to train on, got 5"):
        train_index(KINDS["lists-sq8"](N, D, LISTS), unit(0, 5))
