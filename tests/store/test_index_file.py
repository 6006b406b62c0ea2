import struct
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from store import index_file
from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.index_file import (
    build_exact_index,
    flat_vectors,
    index_size,
    indexed_ids,
    load_index,
    open_index,
    search,
    try_index,
)

Vectors = npt.NDArray[np.float32]


def unit(rng: np.random.Generator, n: int, dimension: int = 16) -> Vectors:
    vectors = rng.standard_normal((n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def ids_of(rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(2**62, n, replace=False).astype(np.int64))


def opened(ids: npt.NDArray[np.int64], vectors: Vectors) -> faiss.Index:
    return load_index(build_exact_index(ids, vectors), where="here")


@pytest.mark.parametrize("queries", [1, 7, 100])
@pytest.mark.parametrize("k", [1, 10, 250, 500])
def test_search_equals_a_matrix_product_that_is_sorted(queries: int, k: int) -> None:
    rng = np.random.default_rng(k)
    ids, vectors, asked = ids_of(rng, 500), unit(rng, 500), unit(rng, queries)
    cosines, found = search(opened(ids, vectors), asked, k=k)
    scores = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    order = np.argsort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(cosines, np.take_along_axis(scores, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 17, 33, 120, 200])
def test_equal_cosines_are_ordered_by_face_id_even_across_the_last_place(k: int) -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 4, 200)  # 200 faces on four vectors: nothing but ties
    vectors = np.eye(4, dtype=np.float32)[places]
    ids = ids_of(rng, 200)
    query = np.array([[0.1, 0.2, 0.3, 0.927]], np.float32)
    _, found = search(opened(ids, vectors), query, k=k)
    expected = sorted(range(200), key=lambda n: (-query[0, places[n]], ids[n]))[:k]
    assert found[0].tolist() == ids[expected].tolist()


def test_a_gallery_smaller_than_k_gives_all_it_has() -> None:
    rng = np.random.default_rng(1)
    ids, vectors = ids_of(rng, 3), unit(rng, 3)
    cosines, found = search(opened(ids, vectors), vectors[:2], k=10)
    assert found.shape == cosines.shape == (2, 3)
    assert found[:, 0].tolist() == ids[:2].tolist()


def test_an_empty_index_answers_with_nothing() -> None:
    index = opened(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    cosines, found = search(index, np.eye(8, dtype=np.float32)[:2], k=5)
    assert found.shape == cosines.shape == (2, 0)
    assert index_size(index) == (0, 8)


def test_a_query_of_another_dimension_is_refused() -> None:
    rng = np.random.default_rng(2)
    index = opened(ids_of(rng, 3), unit(rng, 3))
    with pytest.raises(ArtifactError, match=r"the index holds vectors of 16, the query has shape \(1, 8\)"):
        search(index, unit(rng, 1, 8), k=1)


def test_the_index_says_which_faces_it_holds() -> None:
    rng = np.random.default_rng(3)
    ids = ids_of(rng, 20)
    index = opened(ids, unit(rng, 20))
    assert indexed_ids(index).tolist() == ids.tolist()
    assert index_size(index) == (20, 16)


@pytest.mark.parametrize("ids", [[1, 2, 2, 3], [1, 3, 2, 4]])
def test_ids_that_repeat_or_fall_are_refused_by_name(ids: list[int]) -> None:
    with pytest.raises(ArtifactError, match="face 2 stands twice in the index or out of order"):
        build_exact_index(np.array(ids, np.int64), unit(np.random.default_rng(4), 4))


@pytest.mark.parametrize(("value", "length"), [(np.nan, "nan"), (0.0, "0"), (np.inf, "inf"), (2.0, "8")])
def test_a_vector_that_is_not_of_unit_length_is_refused_by_name(value: float, length: str) -> None:
    vectors = unit(np.random.default_rng(5), 4)
    vectors[2] = value
    with pytest.raises(ArtifactError, match=f"the embedding of face 30 has length {length}, wanted 1"):
        build_exact_index(np.array([10, 20, 30, 40], np.int64), vectors)


def test_equal_faces_give_equal_bytes() -> None:
    ids, vectors = ids_of(np.random.default_rng(6), 30), unit(np.random.default_rng(6), 30)
    assert build_exact_index(ids, vectors) == build_exact_index(ids.copy(), np.asfortranarray(vectors))


@pytest.mark.parametrize("data", [b"", b"nonsense", b"IxFI" + b"\xff" * 200])
def test_bytes_that_are_no_index_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"^here is not an index that FAISS [\d.]+ reads: "):
        load_index(data, where="here")


# Files, mapped, and what may be wrong with them


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of 200 faces on a machine that opened none before."""
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(7)
    path = tmp_path / "index.faiss"
    path.write_bytes(build_exact_index(ids_of(rng, 200), unit(rng, 200)))
    return path


def open_file(path: Path) -> faiss.Index:
    return open_index(path, sha256=sha256_hex(path.read_bytes()), where="here")


def test_a_mapped_index_answers_as_one_in_memory_does(file: Path) -> None:
    mapped, loaded = open_file(file), load_index(file.read_bytes(), where="here")
    queries = unit(np.random.default_rng(8), 20)
    for got, wanted in zip(search(mapped, queries, k=7), search(loaded, queries, k=7), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert indexed_ids(mapped).tolist() == indexed_ids(loaded).tolist()


def test_a_mapped_index_outlives_its_file(file: Path) -> None:
    mapped = open_file(file)
    before = search(mapped, unit(np.random.default_rng(8), 3), k=5)[1]
    file.unlink()
    np.testing.assert_array_equal(search(mapped, unit(np.random.default_rng(8), 3), k=5)[1], before)


def test_the_vectors_of_an_exact_index_are_as_they_were_given() -> None:
    rng = np.random.default_rng(9)
    ids, vectors = ids_of(rng, 30), unit(rng, 30)
    index = opened(ids, vectors)
    found = flat_vectors(index)
    assert found is not None
    np.testing.assert_array_equal(found[0], ids)
    np.testing.assert_array_equal(found[1], vectors)


def hnsw() -> faiss.Index:
    index = faiss.IndexIDMap(faiss.IndexHNSWFlat(16, 4))  # by distance, not by cosine
    index.add_with_ids(unit(np.random.default_rng(1), 20), np.arange(20))
    return index


def flat() -> faiss.Index:
    index = faiss.IndexFlatIP(16)
    index.add(unit(np.random.default_rng(1), 20))
    return index


@pytest.mark.parametrize("make", [hnsw, flat])
def test_an_index_of_another_kind_is_refused(file: Path, make: "type[faiss.Index]") -> None:
    file.write_bytes(bytes(faiss.serialize_index(make())))
    for opening in (open_file, lambda path: load_index(path.read_bytes(), where="here")):
        with pytest.raises(ArtifactError, match="wanted inner products under an IndexIDMap"):
            opening(file)


def bomb() -> bytes:
    """An index of 5 KiB that says it has eight million lists."""
    quantizer = faiss.IndexFlatIP(16)
    index = faiss.IndexIVFFlat(quantizer, 16, 64, faiss.METRIC_INNER_PRODUCT)
    index.train(unit(np.random.default_rng(1), 64 * 39))
    index.add(unit(np.random.default_rng(1), 5))
    data = bytearray(bytes(faiss.serialize_index(index)))
    lists = data.find(struct.pack("<q", 64))
    data[lists : lists + 8] = struct.pack("<q", 2**23)
    return bytes(data)


def test_a_file_that_claims_more_than_it_holds_is_refused_before_memory_is_taken(file: Path) -> None:
    file.write_bytes(bomb())
    with pytest.raises(ArtifactError, match="exceeds deserialization_loop_limit of"):
        open_file(file)


def test_the_first_opening_is_in_a_child_and_the_next_one_is_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = index_file.try_index
    monkeypatch.setattr(index_file, "try_index", lambda path, **kwargs: (tried.append(path), real(path, **kwargs)))
    open_file(file)
    open_file(file)
    assert tried == [file]


def killer(path: Path, code: str) -> SimpleNamespace:
    """A trial of which the process dies: no file is known that does it to this FAISS."""
    path.write_text(code)
    return SimpleNamespace(__file__=str(path), REFUSED=3, open_mapped=lambda _: pytest.fail("it was opened here too"))


DIES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.mark.parametrize(
    ("code", "seconds", "says"),
    [
        (DIES, 60, r"a process that opened it died of it \(SIGSEGV\)"),
        ("raise SystemExit(7)", 60, r"a process that opened it died of it \(exit code 7\)"),
        ("import time; time.sleep(60)", 0, "opening it took more than 0 s"),
    ],
)
def test_a_file_that_kills_costs_the_child(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: int, says: str
) -> None:
    monkeypatch.setattr(index_file, "index_trial", killer(tmp_path / "trial.py", code))
    with pytest.raises(ArtifactError, match=f"^here is not an index that FAISS .* reads: {says}"):
        try_index(file, where="here", seconds=seconds)


def test_without_the_child_a_file_that_kills_reaches_this_process(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "index_trial", killer(tmp_path / "trial.py", DIES))
    monkeypatch.setattr(index_file, "try_index", lambda *_, **__: None)
    with pytest.raises(pytest.fail.Exception, match="it was opened here too"):
        open_file(file)


def test_a_child_that_needs_more_memory_than_allowed_is_refused_it(file: Path) -> None:
    with pytest.raises(ArtifactError, match="^here is not an index that FAISS"):
        try_index(file, where="here", memory_bytes=1)
    try_index(file, where="here")
