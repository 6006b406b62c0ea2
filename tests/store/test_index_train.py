"""Every approximate kind, made small: trained, filled, written, mapped and asked."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.face_vectors import FaceVectors
from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.index_choice import KINDS
from store.index_file import build_index, index_bytes, open_index
from store.index_search import SearchSettings, search

N, D, LISTS = 1_500, 32, 16
DRAWN = FaceVectors(N, D)
VECTORS = np.concatenate([vectors for _, vectors in DRAWN.stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))
QUERIES = DRAWN.queries(40)
EVERYWHERE = SearchSettings(nprobe=LISTS, refine=100)
APPROXIMATE = [kind for kind in KINDS if kind != "exact"]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_kind_finds_the_nearest_from_a_mapped_file_and_the_same_faces_make_the_same_file(
    kind: str, tmp_path: Path
) -> None:
    candidate = KINDS[kind](N, D, LISTS)
    data = index_bytes(build_index(candidate, IDS, VECTORS))
    assert index_bytes(build_index(candidate, IDS, VECTORS)) == data
    assert 0.8 < candidate.file_bytes / len(data) < 1.25
    path = tmp_path / "index.faiss"
    path.write_bytes(data)
    opened = open_index(path, sha256=sha256_hex(data), where="here")
    cosines, found = search(opened, QUERIES, k=10, settings=EVERYWHERE)
    truth = QUERIES @ VECTORS.T
    wanted = np.argsort(-truth, axis=1)[:, :10]
    overlap = np.mean([len(set(IDS[a].tolist()) & set(b.tolist())) / 10 for a, b in zip(wanted, found, strict=True)])
    assert overlap > 0.95
    rows = np.searchsorted(IDS, found)
    np.testing.assert_allclose(cosines, np.take_along_axis(truth, rows, axis=1), atol=0.02)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_who_a_filter_keeps_out_is_not_found_by_any_kind(kind: str) -> None:
    index = build_index(KINDS[kind](N, D, LISTS), IDS, VECTORS)
    _, found = search(index, QUERIES, k=10, settings=EVERYWHERE, allowed_A=IDS[::2])
    assert set(found.ravel().tolist()) <= set(IDS[::2].tolist())


def test_who_asks_for_one_face_gets_the_first_of_ten() -> None:
    index = build_index(KINDS["scan"](N, D, LISTS), IDS, VECTORS)
    lazy = SearchSettings(refine=3)
    one, ten = (search(index, QUERIES, k=k, settings=lazy)[1] for k in (1, 10))
    assert np.mean(one[:, 0] == ten[:, 0]) > 0.9


def test_fewer_faces_than_lists_are_refused_with_both_numbers() -> None:
    with pytest.raises(ArtifactError, match="IVF16,SQ8 wants at least 16 faces to train on, got 5"):
        build_index(KINDS["lists-sq8"](5, D, LISTS), IDS[:5], VECTORS[:5])
