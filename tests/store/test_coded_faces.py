"""Coded faces and trained indexes as files: what is read is what was written, and nothing else is taken for it."""

from typing import Any

import numpy as np
import pytest

from store.coded_faces import coded_parquet, read_coded
from store.errors import ArtifactError
from store.index_choice import KINDS
from store.index_stream import CodedFaces, code_faces, code_sizes
from store.index_train import train_index
from store.trained_index import read_trained, trained_bytes

N, D, LISTS = 600, 32, 8


def unit(seed: int, n: int = N) -> Any:
    vectors = np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def trained(kind: str) -> Any:
    return train_index(KINDS[kind](N, D, LISTS), unit(0))


def same(one: CodedFaces, other: CodedFaces) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("rows", "lists", "codes", "finer"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_index_that_is_read_back_codes_faces_to_the_same_bytes_and_is_the_same_file(kind: str) -> None:
    empty = trained(kind)
    data = trained_bytes(empty)
    again = read_trained(data, where="here")
    assert trained_bytes(again) == data
    assert same(code_faces(empty, np.arange(N), unit(1)), code_faces(again, np.arange(N), unit(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_read_back_together_by_rising_row(kind: str) -> None:
    empty, vectors = trained(kind), unit(2)
    rows = np.random.default_rng(3).permutation(N) * 10
    parts = [code_faces(empty, some, vectors[some // 10]) for some in np.array_split(rows, 3)]
    code_bytes, finer_bytes = code_sizes(empty)
    got = read_coded(coded_parquet(parts), code_bytes=code_bytes, finer_bytes=finer_bytes, where="here")
    assert got.rows.tolist() == list(range(0, 10 * N, 10))
    for part in parts:
        at = part.rows // 10
        assert same(part, CodedFaces(got.rows[at], got.lists[at], got.codes[at], got.finer[at]))


def test_a_block_of_nobody_is_read_back_as_one() -> None:
    empty = trained("scan")
    nobody = code_faces(empty, np.zeros(0, np.int64), np.zeros((0, D), np.float32))
    code_bytes, finer_bytes = code_sizes(empty)
    got = read_coded(coded_parquet([nobody]), code_bytes=code_bytes, finer_bytes=finer_bytes, where="here")
    assert (len(got.rows), got.codes.shape, got.finer.shape) == (0, (0, code_bytes), (0, finer_bytes))


def test_codes_of_another_index_and_files_that_are_none_are_refused_by_name() -> None:
    data = coded_parquet([code_faces(trained("scan"), np.arange(N), unit(2))])
    code_bytes, finer_bytes = code_sizes(trained("scan"))
    with pytest.raises(ArtifactError, match=rf"here has fixed_size_binary\[{code_bytes}\] in column codes, wanted"):
        read_coded(data, code_bytes=code_bytes + 1, finer_bytes=finer_bytes, where="here")
    with pytest.raises(ArtifactError, match="here has no column finer"):
        read_coded(
            coded_parquet([code_faces(trained("lists-sq8"), np.arange(N), unit(2))]),
            code_bytes=D,
            finer_bytes=D,
            where="here",
        )
    at = data.index(b"PAR1", 4) // 2
    broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(ArtifactError, match="here cannot be read as Parquet"):
        read_coded(broken, code_bytes=code_bytes, finer_bytes=finer_bytes, where="here")
    with pytest.raises(ArtifactError, match="here is not an index that FAISS"):
        read_trained(b"no index", where="here")
