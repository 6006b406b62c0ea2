"""Fifty rounds of random additions and removals, twice as many faces as the rule lets pass before it trains anew, against fresh builds."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from benchmarks.face_vectors import FaceVectors
from store.index_change import MOST_BESIDE
from store.index_changed import ChangedIndex
from store.index_choice import kind_for
from store.index_edit import edit_index, emptied
from store.index_file import build_index, index_bytes, indexed_ids, load_index
from store.index_search import SearchSettings
from tasks.steps.face_blocks import Gallery
from tasks.steps.measure_index import Questions, recall_of, tune

POOL, FIRST, D, ROUNDS = 9_000, 4_000, 64, 50
DRAWN = FaceVectors(POOL, D)
VECTORS = np.concatenate([vectors for _, vectors in DRAWN.stream()])
IDS = np.sort(np.random.default_rng(1).choice(2**62, POOL, replace=False).astype(np.int64))
QUERIES = DRAWN.queries(300)


def made(kind: str, rows: Any) -> Any:
    return load_index(index_bytes(build_index(kind_for(kind, len(rows), D), IDS[rows], VECTORS[rows])), where="here")


@pytest.mark.parametrize("kind", ["scan", "lists-sq8", "lists-rabitq"])
def test_after_fifty_rounds_of_changes_recall_is_within_a_hundredth_of_a_fresh_build_s(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 1_000)
    rng = np.random.default_rng(5)
    there = np.sort(rng.choice(POOL, FIRST, replace=False))
    index, path = made(kind, there), tmp_path / "0"
    path.write_bytes(index_bytes(index))
    best, _ = tune(index, Questions.of(QUERIES, Gallery(IDS[there], VECTORS[there])), recall=0.95)
    for turn in range(1, ROUNDS + 1):
        out = rng.choice(there, int(rng.integers(0, 60)), replace=False)
        new = np.sort(rng.choice(np.setdiff1d(np.arange(POOL), there), int(rng.integers(0, 70)), replace=False))
        path, before = tmp_path / str(turn), path
        edit_index(before, path, removed_R=IDS[out], added_A=IDS[new], vectors_AD=VECTORS[new])
        before.unlink()
        there = np.sort(np.concatenate([np.setdiff1d(there, out), new]))
        if turn in {10, 25, ROUNDS}:
            index = load_index(path.read_bytes(), where="here")
            asked = Questions.of(QUERIES, Gallery(IDS[there], VECTORS[there]))
            drifted, fresh = (at_10(one, asked, best.settings) for one in (index, made(kind, there)))
            assert drifted > fresh - 0.01
    assert np.array_equal(indexed_ids(index), IDS[there])


@pytest.mark.parametrize("kind", ["scan", "lists-sq8", "lists-rabitq"])
def test_after_fifty_rounds_kept_beside_the_first_index_recall_is_within_a_hundredth_of_a_fresh_build_s(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("store.index_choice.FEWEST_FOR_CODES", 1_000)
    rng = np.random.default_rng(6)
    first = np.sort(rng.choice(POOL, FIRST, replace=False))
    there, left, path = first, np.zeros(0, np.int64), tmp_path / "0"
    base = made(kind, first)
    best, _ = tune(base, Questions.of(QUERIES, Gallery(IDS[first], VECTORS[first])), recall=0.95)
    nobody = faiss.IndexIDMap(emptied(made(kind, first)))
    path.write_bytes(index_bytes(nobody))
    for turn in range(1, ROUNDS + 1):
        out = rng.choice(there, int(rng.integers(0, 12)), replace=False)
        new = np.sort(rng.choice(np.setdiff1d(np.arange(POOL), there), int(rng.integers(0, 12)), replace=False))
        added = indexed_ids(load_index(path.read_bytes(), where="here"))
        gone = np.intersect1d(IDS[out], added)
        path, before = tmp_path / str(turn), path
        edit_index(before, path, removed_R=gone, added_A=IDS[new], vectors_AD=VECTORS[new])
        left = np.union1d(left, np.setdiff1d(IDS[out], gone))
        there = np.sort(np.concatenate([np.setdiff1d(there, out), new]))
    index = ChangedIndex(base, load_index(path.read_bytes(), where="here"), left)
    assert np.array_equal(indexed_ids(index), IDS[there])
    assert 0.05 * FIRST < len(left) < MOST_BESIDE * FIRST
    asked = Questions.of(QUERIES, Gallery(IDS[there], VECTORS[there]))
    drifted, fresh = (at_10(one, asked, best.settings) for one in (index, made(kind, there)))
    assert drifted > fresh - 0.01


def at_10(index: Any, asked: Questions, settings: SearchSettings) -> float:
    return recall_of(index, asked, settings, ks=(10,))[10]
