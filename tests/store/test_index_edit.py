"""Indexes whose faces come and go. The oracle is the same trained parts, emptied and filled with all faces that stand."""

import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.face_vectors import FaceVectors
from store.errors import ArtifactError
from store.fingerprints import sha256_hex
from store.index_choice import KINDS, kind_for
from store.index_edit import edit_index, emptied, misfit_of, unevenness_of
from store.index_file import build_exact_index, build_index, index_bytes, indexed_ids, load_index
from store.index_search import SearchSettings, parts_of, search
from store.index_stream import WrittenIndex
from store.index_train import train_index

N, D = 3_000, 32
VECTORS = np.concatenate([vectors for _, vectors in FaceVectors(N, D).stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, N, replace=False).astype(np.int64))
FIRST = np.flatnonzero(np.arange(N) % 3 > 0)  # two thousand of them, which are indexed at first
HARD = SearchSettings(nprobe=10**6, refine=200)
Ints = npt.NDArray[np.int64]


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 1_000)
    monkeypatch.setattr("store.index_edit._BLOCK", 320)  # many blocks


def built(kind: str) -> Any:
    index = build_index(kind_for(kind, len(FIRST), D), IDS[FIRST], VECTORS[FIRST])
    return load_index(index_bytes(index), where="here")


def edited(index: Any, *, out: Ints, new: Ints) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        source.write_bytes(index_bytes(index))
        written = edit_index(source, target, removed_R=IDS[out], added_A=IDS[new], vectors_AD=VECTORS[new])
        data = target.read_bytes()
        assert written == WrittenIndex(len(data), sha256_hex(data))
        assert sorted(path.name for path in Path(folder).iterdir()) == ["source", "target"]
    return load_index(data, where="here")


def filled_anew(kind: str, rows: Ints) -> bytes:
    """The trained parts of the first index, emptied, and given these faces."""
    index = built(kind)
    index.reset()
    index.add_with_ids(np.ascontiguousarray(VECTORS[rows]), IDS[rows])
    return index_bytes(index)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_index_is_byte_for_byte_what_its_trained_parts_make_of_all_its_faces(kind: str) -> None:
    rng = np.random.default_rng(3)
    index, there = built(kind), set(FIRST.tolist())
    for _ in range(4):
        out = np.sort(rng.choice(sorted(there), int(rng.integers(0, 90)), replace=False)).astype(np.int64)
        outside = sorted(set(range(N)) - there)
        new = np.sort(rng.choice(outside, int(rng.integers(0, 90)), replace=False)).astype(np.int64)
        index = edited(index, out=out, new=new)
        there = (there - set(out.tolist())) | set(new.tolist())
        rows = np.array(sorted(there))
        assert np.array_equal(indexed_ids(index), IDS[rows])
        if kind != "lists-rabitq":
            assert index_bytes(index) == filled_anew(kind, rows)
            continue
        again = load_index(filled_anew(kind, rows), where="here")  # rotated in another company: the last bit differs
        got, wanted = (search(one, VECTORS[::50], k=10, settings=HARD) for one in (index, again))
        assert np.array_equal(got[1], wanted[1])
        assert np.array_equal(got[0], wanted[0])


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_removed_is_never_answered_and_who_stays_has_the_cosine_he_had(kind: str) -> None:
    index = built(kind)
    before = {s: search(index, VECTORS[FIRST[:40]], k=10, settings=s) for s in (HARD,)}
    out = FIRST[5::7]
    index = edited(index, out=out, new=np.zeros(0, np.int64))
    for settings, (cosines, ids) in before.items():
        found_cosines, found = search(index, VECTORS[FIRST[:40]], k=10, settings=settings)
        assert not np.isin(found, IDS[out]).any()
        for n in range(40):
            stay = ~np.isin(ids[n], IDS[out])
            assert found[n, : stay.sum()].tolist() == ids[n, stay].tolist()
            np.testing.assert_allclose(found_cosines[n, : stay.sum()], cosines[n, stay], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_added_is_found_by_his_own_vector(kind: str) -> None:
    index = built(kind)
    new = np.flatnonzero(np.arange(N) % 3 == 0)[:300]
    index = edited(index, out=np.zeros(0, np.int64), new=new)
    found = search(index, VECTORS[new], k=1, settings=HARD)[1][:, 0]
    assert (found == IDS[new]).mean() > 0.98


def test_an_exact_index_that_was_edited_is_the_file_that_a_full_build_writes() -> None:
    index = built("exact")
    new = np.flatnonzero(np.arange(N) % 3 == 0)
    index = edited(index, out=FIRST[::9], new=new)
    rows = np.sort(np.concatenate([np.setdiff1d(FIRST, FIRST[::9]), new]))
    assert index_bytes(index) == build_exact_index(IDS[rows], VECTORS[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_everybody_may_go_and_others_may_come_after(kind: str) -> None:
    index = built(kind)
    index = edited(index, out=FIRST, new=np.zeros(0, np.int64))
    assert index.ntotal == 0
    opened = load_index(index_bytes(index), where="here")
    opened = edited(opened, out=np.zeros(0, np.int64), new=np.array([0, 3]))
    assert sorted(search(opened, VECTORS[:1], k=5, settings=HARD)[1][0].tolist()) == IDS[[0, 3]].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_hold_no_code_of_who_is_gone(kind: str) -> None:
    index = built(kind)
    code = faiss.downcast_index(index.index.refine_index) if hasattr(index.index, "refine_index") else None
    parts = [IDS[FIRST[7]].tobytes()]
    if code is not None:
        parts.append(code.sa_encode(VECTORS[FIRST[[7]]]).tobytes())
    assert all(part in index_bytes(index) for part in parts)
    index = edited(index, out=FIRST[[7]], new=np.zeros(0, np.int64))
    assert not any(part in index_bytes(index) for part in parts)


@pytest.mark.parametrize(
    ("out", "new", "sentence"),
    [
        ([0], [], r"face \d+ cannot be removed: it is not there"),
        ([1, 1], [], r"face \d+ cannot be removed: it is not there"),
        ([], [1], r"face \d+ cannot be added: it is there already"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused_and_changes_nothing(
    out: list[int], new: list[int], sentence: str, tmp_path: Path
) -> None:
    (source := tmp_path / "source").write_bytes(index_bytes(built("lists-sq8")))
    gone, come = IDS[np.array(out, np.int64)], np.array(new, np.int64)
    with pytest.raises(ArtifactError, match=sentence):
        edit_index(source, tmp_path / "target", removed_R=gone, added_A=IDS[come], vectors_AD=VECTORS[come])
    assert list(tmp_path.iterdir()) == [source]


def test_a_vector_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    nothing = np.zeros((1, D), np.float32)
    with pytest.raises(ArtifactError, match=rf"the embedding of face {IDS[0]} has length 0, wanted 1"):
        edit_index(tmp_path / "source", tmp_path / "x", removed_R=IDS[:0], added_A=IDS[:1], vectors_AD=nothing)


@pytest.mark.parametrize("kind", KINDS)
def test_an_emptied_index_is_what_was_trained(kind: str) -> None:
    candidate = kind_for(kind, N, D)
    trained = train_index(candidate, VECTORS)
    index = faiss.IndexIDMap(faiss.clone_index(trained))
    index.add_with_ids(VECTORS, IDS)
    emptied_bytes, trained_bytes = (faiss.serialize_index(one).tobytes() for one in (emptied(index), trained))
    assert emptied_bytes == trained_bytes


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exact"])
def test_faces_unlike_those_it_was_trained_on_fit_it_worse(kind: str) -> None:
    index = built(kind)
    others = np.random.default_rng(0).standard_normal((400, D)).astype(np.float32)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    alike, unlike = misfit_of(index, VECTORS[::3]), misfit_of(index, others)
    assert alike is not None
    assert unlike is not None
    assert unlike > 1.1 * alike


def test_lists_that_fill_unevenly_are_told() -> None:
    index = built("lists-sq8")
    before = unevenness_of(index)
    rows = np.argsort(-(VECTORS @ VECTORS[1]))
    near = np.sort(rows[rows % 3 == 0][:400])
    index = edited(index, out=np.zeros(0, np.int64), new=near)
    after = unevenness_of(index)
    lists = parts_of(index).lists
    sizes = np.array([lists.invlists.list_size(n) for n in range(lists.nlist)])
    assert before is not None
    assert after is not None
    assert after > before
    assert after == pytest.approx(len(sizes) * (sizes**2).sum() / sizes.sum() ** 2, rel=1e-6)
    assert unevenness_of(built("exact")) is misfit_of(built("exact"), VECTORS) is None
