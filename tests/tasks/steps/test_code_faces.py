"""Faces coded block by block, by whoever takes a block, and merged: byte for byte the index that one pass over all of them makes."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from models.exact_search import NearestFaces
from store.errors import ArtifactError
from store.index_choice import KINDS, IndexBudget
from store.index_stream import Spool
from store.index_train import train_index
from store.layout import embeddings_path, open_store
from store.schemas import TO_CODE, embeddings_schema, from_parquet, to_parquet
from store.storage import Storage
from tasks.steps import code_faces as step
from tasks.steps.build_anew import TrainedAnew
from tasks.steps.children import children, run_in_child
from tasks.steps.choose_index import ChosenKind, TrainedKind
from tasks.steps.code_faces import CodedBlock, code_faces, read_kept
from tasks.steps.held_out_truth import HeldOut
from tasks.steps.measure_index import KEPT
from tasks.steps.plan_coding import CodingPlan, merge_coded, plan_coding
from tasks.steps.stored_faces import StoredFaces, open_faces, open_part

N, D, LISTS, SHARDS = 3_000, 32, 16, 23
RNG = np.random.default_rng(0)
IDS = np.sort(RNG.choice(2**62, N, replace=False).astype(np.int64))
VECTORS = RNG.standard_normal((N, D)).astype(np.float32) * np.linspace(2, 0.2, D, dtype=np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = VECTORS[::60] + 0.1 * RNG.standard_normal((50, D)).astype(np.float32)
QUERIES /= np.linalg.norm(QUERIES, axis=1, keepdims=True)
SHARD = RNG.integers(0, SHARDS, N)
ENCODER = "e" * 32
BUDGET = IndexBudget(recall=0.95)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.steps.stored_faces._HELD_BYTES", 1_000)
    monkeypatch.setattr("tasks.steps.stored_faces.BLOCK", 300)
    monkeypatch.setattr("tasks.steps.plan_coding._FACES", 700)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return filled(open_store(str(tmp_path / "store"), create=True))


def filled(stored: Storage) -> Storage:
    for number in range(SHARDS):
        rows = np.random.default_rng(number).permutation(np.flatnonzero(number == SHARD))
        write_shard(stored, number, IDS[rows], VECTORS[rows])
    return stored


def write_shard(stored: Storage, number: int, ids: Any, vectors: Any) -> None:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), D)
    table = pa.table({"face_id": ids, "embedding": flat})
    stored.write(embeddings_path(ENCODER, f"{number:032x}"), to_parquet(table, embeddings_schema(D)))


def opened(storage: Storage) -> StoredFaces:
    table = pa.table({"face_id": IDS, "shard": [f"{one:032x}" for one in SHARD]})
    faces = open_faces(storage, table, encoder=ENCODER, dimension=D, recorded=None)
    assert isinstance(faces, StoredFaces)
    return faces


def planned(storage: Storage, kind: str = "scan", faces: StoredFaces | None = None) -> CodingPlan:
    candidate = KINDS[kind](N, D, LISTS)
    trained = train_index(candidate, VECTORS[::2])
    asked = NearestFaces.of(QUERIES, depth=KEPT)
    chosen = ChosenKind(candidate, "wanted", "measured", ({"kind": kind, "points": []},), 100, 0.5)
    held = HeldOut("tune", IDS[: len(QUERIES)], {1.0: asked})
    anew = TrainedAnew(faces or opened(storage), TrainedKind(chosen, trained, asked), held, "it is new")
    return plan_coding(storage, anew, build="a-build", tables={})


def coded(storage: Storage, plan: CodingPlan) -> list[CodedBlock]:
    return [code_faces(block, store=storage.uri, coder=plan.coder) for block in (*plan.finished, *plan.requests)]


def merged(storage: Storage, plan: CodingPlan, blocks: list[CodedBlock], folder: Path) -> tuple[Any, HeldOut]:
    folder.mkdir(exist_ok=True)
    return merge_coded(storage, plan, blocks, ids_N=IDS, budget=BUDGET, folder=folder)


def one_pass(storage: Storage, kind: str, folder: Path) -> tuple[bytes, NearestFaces]:
    """The index and the queries' nearest, of one pass over all faces in this process."""
    near = NearestFaces.of(QUERIES, depth=KEPT)
    with Spool(train_index(KINDS[kind](N, D, LISTS), VECTORS[::2]), IDS, folder) as spool:
        for rows, vectors in opened(storage).blocks():
            spool.add(rows, vectors)
            near = near.added(IDS[rows], vectors)
        spool.write(folder / "one.faiss")
    return (folder / "one.faiss").read_bytes(), near


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exact"])
def test_blocks_coded_apart_are_merged_to_the_bytes_of_one_pass(kind: str, storage: Storage, tmp_path: Path) -> None:
    plan = planned(storage, kind)
    assert len(plan.requests) >= 4
    assert sum(block.rows for block in plan.requests) == N
    blocks = coded(storage, plan)
    assert all(block.computed for block in blocks)
    built, held = merged(storage, plan, blocks[::-1], tmp_path / "room")
    wanted, near = one_pass(storage, kind, tmp_path)
    assert built.path.read_bytes() == wanted
    for name in ("queries", "ids", "cosines", "hidden"):
        assert getattr(held.near[1.0], name).tobytes() == getattr(near, name).tobytes()
    exact = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :10]
    assert np.array_equal(held.near[1.0].ids[:, :10], IDS[exact])
    assert (built.key, built.parameters["kind"]) == (plan.chosen.candidate.key, kind)
    assert built.why.startswith("wanted; ")
    assert built.why.endswith("; measured; made anew: it is new")
    assert [one["kind"] for one in built.measured] == [kind, kind]
    assert built.trained is not None
    assert (built.trained.faces, built.trained.misfit) == (N, 0.5)
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["index.faiss"]


def test_children_of_one_thread_each_code_to_the_same_bytes(storage: Storage, tmp_path: Path) -> None:
    plan = planned(storage)

    def code(block: Any) -> CodedBlock:
        return run_in_child(code_faces, block, store=storage.uri, coder=plan.coder)

    with children(2), ThreadPoolExecutor(2) as threads:
        blocks = list(threads.map(code, plan.requests))
    assert all(block.computed for block in blocks)
    assert (
        merged(storage, plan, blocks, tmp_path / "room")[0].path.read_bytes() == one_pass(storage, "scan", tmp_path)[0]
    )


def test_a_block_s_faces_come_as_those_of_the_whole_do(storage: Storage) -> None:
    faces = opened(storage)
    whole = list(faces.blocks())
    parts = [from_parquet(to_parquet(part, TO_CODE), TO_CODE, where="x") for part in faces.parts(700)]
    assert all(part.num_rows >= 700 for part in parts[:-1])
    again = [
        (part["row"].to_numpy()[at], vectors)
        for part in parts
        for at, vectors in open_part(storage, part, encoder=ENCODER, dimension=D).blocks()
    ]
    assert len(again) == len(whole) > len(parts)
    for (rows, vectors), (rows_again, vectors_again) in zip(whole, again, strict=True):
        assert np.array_equal(rows, rows_again)
        assert np.array_equal(vectors, vectors_again)


def test_a_block_that_is_coded_is_not_coded_again_by_a_build_that_would_code_the_same(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(storage)
    early = [code_faces(block, store=storage.uri, coder=before.coder) for block in before.requests[:2]]
    plan = planned(storage)
    assert plan.coder == before.coder
    assert plan.finished == before.requests[:2]
    assert plan.requests == before.requests[2:]
    with monkeypatch.context() as patch:
        patch.setattr("tasks.steps.code_faces.codes_of", None)
        late = [code_faces(block, store=storage.uri, coder=plan.coder) for block in plan.finished]
    assert late == [replace(block, computed=False) for block in early]
    built, _ = merged(storage, plan, coded(storage, plan), tmp_path / "room")
    assert built.path.read_bytes() == one_pass(storage, "scan", tmp_path)[0]


def test_another_training_other_faces_and_other_hashes_are_coded_by_themselves(storage: Storage) -> None:
    plan = planned(storage)
    coded(storage, plan)
    other = planned(storage, "lists-sq8")
    assert other.coder.folder != plan.coder.folder
    assert other.finished == ()
    known = replace(opened(storage), hashes={f"{3:032x}": "0" * 64})
    again = planned(storage, faces=known)
    assert again.coder == plan.coder
    assert len(again.requests) == 1  # the block with that shard
    with pytest.raises(ArtifactError, match=rf"{3:032x}.parquet has changed: its sha256 is \w+…, recorded was 0000"):
        code_faces(again.requests[0], store=storage.uri, coder=again.coder)


@pytest.mark.parametrize("what", ["codes", "near"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_coded_block_that_does_not_read_back_is_refused_and_coded_anew_the_next_time(
    what: str, how: str, storage: Storage, tmp_path: Path
) -> None:
    plan = planned(storage)
    blocks = coded(storage, plan)
    path = storage.path_of(getattr(blocks[1], what).uri)
    if how == "changed":
        data = bytearray(storage.read(path))
        data[len(data) // 2] ^= 1
        storage.write(path, bytes(data))
    else:
        storage.remove(path)
    told = "has changed" if how == "changed" else "is missing from the store"
    with pytest.raises(
        ArtifactError,
        match=rf"{told}.*; of 4 coded blocks of faces 1 cannot be read back: run the same command again",
    ):
        merged(storage, plan, blocks, tmp_path / "room")
    assert list((tmp_path / "room").iterdir()) == []
    plan = planned(storage)
    assert [block.sha256 for block in plan.requests] == [blocks[1].block]
    built, _ = merged(storage, plan, coded(storage, plan), tmp_path / "room")
    assert built.path.read_bytes() == one_pass(storage, "scan", tmp_path)[0]


def test_a_trained_index_and_queries_that_have_changed_are_refused_before_anybody_parses_them(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(storage)
    monkeypatch.setattr("tasks.steps.code_faces.read_trained", lambda *_, **__: pytest.fail("it was parsed"))
    storage.write(storage.path_of(plan.coder.trained.uri), b"another index")
    with pytest.raises(ArtifactError, match=r"\.faiss has changed: its sha256 is"):
        code_faces(plan.requests[0], store=storage.uri, coder=plan.coder)


def test_a_request_that_has_changed_and_a_commit_that_says_nothing_are_no_coded_block(storage: Storage) -> None:
    plan = planned(storage)
    block = plan.requests[0]
    storage.write(f"{plan.coder.folder}/{block.sha256}.json", b'{"codes": "half')
    assert code_faces(block, store=storage.uri, coder=plan.coder).computed
    said = json.loads(storage.read(f"{plan.coder.folder}/{block.sha256}.json"))
    assert sorted(said) == ["codes", "near"]
    storage.write(storage.path_of(plan.requests[1].uri), read_kept(storage, block))
    with pytest.raises(ArtifactError, match="has changed"):
        code_faces(plan.requests[1], store=storage.uri, coder=plan.coder)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda ids, vectors: (ids, 2 * vectors), r"the embedding of face \d+ has length 2, wanted 1"),
        (lambda ids, vectors: (ids[1:], vectors[1:]), rf"face \d+ of shard {5:032x} has no embedding by {ENCODER}"),
    ],
)
def test_a_vector_that_is_none_and_one_that_is_missing_are_named_by_the_worker(
    spoil: Callable[..., Any], sentence: str, storage: Storage
) -> None:
    plan = planned(storage)
    rows = np.flatnonzero(SHARD == 5)
    write_shard(storage, 5, *spoil(IDS[rows], VECTORS[rows]))
    with pytest.raises(ArtifactError, match=sentence):
        coded(storage, plan)


def test_a_block_that_nobody_coded_is_missed(storage: Storage, tmp_path: Path) -> None:
    plan = planned(storage)
    blocks = coded(storage, plan)
    with pytest.raises(ArtifactError, match=rf"{N - plan.requests[0].rows:,} faces were added to an index of {N:,}"):
        merged(storage, plan, blocks[1:], tmp_path / "room")
    assert list((tmp_path / "room").iterdir()) == []


def test_of_two_workers_with_one_block_the_first_is_taken_by_both(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(storage)
    block, real = plan.requests[0], step.codes_of
    first = code_faces(block, store=storage.uri, coder=plan.coder)
    commit = f"{plan.coder.folder}/{block.sha256}.json"
    said = storage.read(commit)
    storage.remove(commit)

    def otherwise(*given: Any) -> Any:
        """As another kind of processor may round, while the first worker ends."""
        coded = real(*given)
        storage.create(commit, said)
        return replace(coded, codes=coded.codes ^ 1)

    with monkeypatch.context() as patch:
        patch.setattr(step, "codes_of", otherwise)
        second = code_faces(block, store=storage.uri, coder=plan.coder)
    assert second == first
    built, _ = merged(storage, plan, coded(storage, planned(storage)), tmp_path / "room")
    assert built.path.read_bytes() == one_pass(storage, "scan", tmp_path)[0]


def test_blocks_pass_through_s3_too(s3: str, tmp_path: Path) -> None:
    storage = filled(open_store(f"{s3}/store", create=True))
    plan = planned(storage)
    built, _ = merged(storage, plan, coded(storage, plan), tmp_path / "room")
    assert built.path.read_bytes() == one_pass(storage, "scan", tmp_path)[0]
    assert len(planned(storage).finished) == len(plan.requests)
