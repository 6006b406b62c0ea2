import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import ArtifactError, StoreError, VersionError
from store.fingerprints import sha256_hex
from store.index_file import build_exact_index
from store.layout import open_store
from store.refs import ArtifactRef
from store.schemas import VERSION_FACES, VERSION_PHOTOS, from_parquet, to_parquet
from store.versions import current_number, published_numbers
from tasks.steps.check_version import check_version
from tasks.steps.publish_version import publish_version

pytestmark = pytest.mark.usefixtures("easy_faces")
Paint = Callable[[Path, int | None], Path]
FILES = ["index.faiss", "faces.parquet", "photos.parquet"]


@pytest.fixture
def photos(tmp_path: Path, paint: Paint) -> Path:
    for n in range(12):
        paint(tmp_path / "photos" / f"{n}.png", n)
    return tmp_path / "photos"


@pytest.fixture
def draft(builder: Any, photos: Path) -> ArtifactRef:
    ref: ArtifactRef = builder.draft(builder.plan(photos))
    return ref


def rewritten(builder: Any, draft: ArtifactRef, name: str, data: bytes, **changes: Any) -> ArtifactRef:
    """The draft as a liar would make it: another file, and a manifest that names its hash."""
    storage = open_store(builder.store)
    path = storage.path_of(draft.uri)
    folder = path.rsplit("/", 1)[0]
    storage.write(f"{folder}/{name}", data)
    document = json.loads(storage.read(path)) | changes
    document["files"][name] = {"bytes": len(data), "sha256": sha256_hex(data)}
    document["index"] |= document["files"]["index.faiss"]
    document.pop("self_sha256", None)  # as a manifest of the first release
    storage.write(path, json.dumps(document).encode())
    return draft


def file_of(builder: Any, draft: ArtifactRef, name: str) -> tuple[Any, str]:
    storage = open_store(builder.store)
    return storage, f"{storage.path_of(draft.uri).rsplit('/', 1)[0]}/{name}"


def test_a_good_draft_passes_with_its_recall_and_a_report(builder: Any, draft: ArtifactRef) -> None:
    checked = check_version(draft, store=builder.store)
    assert checked.recall_at_10 == 1.0
    storage, path = file_of(builder, draft, "draft.json")
    document = json.loads(storage.read(path, sha256=checked.draft.sha256))
    assert document["gate"] == {"recall_at_10": 0.95, "passed": True}
    assert document["metrics"]["recall_at_10"] == 1.0
    assert document["metrics"]["queries_from"] == "stored vectors moved by noise"
    assert document["metrics"]["p99_ms"] >= document["metrics"]["p50_ms"] > 0
    report = storage.read(file_of(builder, draft, "report.html")[1], sha256=document["files"]["report.html"]["sha256"])
    assert b"12 faces in 12 photos" in report


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_staged_file_that_changed_is_refused_and_nothing_is_published(
    builder: Any, draft: ArtifactRef, name: str, how: str
) -> None:
    storage, path = file_of(builder, draft, name)
    data = bytearray(storage.read(path))
    data[len(data) // 2] ^= 1
    storage.remove(path) if how == "gone" else storage.write(path, bytes(data if how == "flipped" else data[:-7]))
    with pytest.raises(ArtifactError, match=rf"/{name} (has changed|is missing)"):
        check_version(draft, store=builder.store)
    assert current_number(storage) is None
    assert published_numbers(storage) == []


@pytest.mark.parametrize("name", [*FILES, "report.html"])
def test_a_file_that_changes_between_check_and_publication_is_refused(builder: Any, photos: Path, name: str) -> None:
    plan = builder.plan(photos)
    checked = check_version(builder.draft(plan), store=builder.store)
    storage, path = file_of(builder, checked.draft, name)
    storage.write(path, storage.read(path) + b" ")
    with pytest.raises(ArtifactError, match=rf"/{name} has changed"):
        publish_version(checked.draft, store=builder.store, plan=plan)
    assert current_number(storage) is None
    assert published_numbers(storage) == []


def test_a_draft_that_changed_after_its_check_is_not_published(builder: Any, photos: Path) -> None:
    plan = builder.plan(photos)
    checked = check_version(builder.draft(plan), store=builder.store)
    storage, path = file_of(builder, checked.draft, "draft.json")
    storage.write(path, storage.read(path) + b" ")
    with pytest.raises(ArtifactError, match=r"/draft.json has changed"):
        publish_version(checked.draft, store=builder.store, plan=plan)
    storage.write(path, b"{}")
    with pytest.raises(StoreError, match="draft.json is not a manifest of format 1"):
        check_version(checked.draft, store=builder.store)


def test_an_index_whose_vectors_stand_under_other_faces_is_refused_by_the_gate(
    builder: Any, draft: ArtifactRef
) -> None:
    storage, path = file_of(builder, draft, "faces.parquet")
    ids = from_parquet(storage.read(path), VERSION_FACES, where="x").column("face_id").to_numpy()
    wrong = np.random.default_rng(0).standard_normal((len(ids), 32)).astype(np.float32)
    data = build_exact_index(ids, wrong / np.linalg.norm(wrong, axis=1, keepdims=True))
    with pytest.raises(VersionError, match=r"the gate refused the version: recall@10 is 0\.\d+, wanted at least 0.95"):
        check_version(rewritten(builder, draft, "index.faiss", data), store=builder.store)


def test_an_index_of_other_faces_is_refused(builder: Any, draft: ArtifactRef) -> None:
    storage, path = file_of(builder, draft, "faces.parquet")
    ids = from_parquet(storage.read(path), VERSION_FACES, where="x").column("face_id").to_numpy().copy()
    ids[-1] += 1
    vectors = np.eye(32, dtype=np.float32)[: len(ids)]
    with pytest.raises(VersionError, match=r"the index holds other faces than faces.parquet; nothing was published"):
        check_version(rewritten(builder, draft, "index.faiss", build_exact_index(ids, vectors)), store=builder.store)


@pytest.mark.parametrize(
    ("count", "dimension", "what"), [(11, 32, "11 vectors"), (12, 16, "16 dimensions of the index")]
)
def test_an_index_of_another_size_is_refused(
    builder: Any, draft: ArtifactRef, count: int, dimension: int, what: str
) -> None:
    data = build_exact_index(np.arange(count, dtype=np.int64), np.eye(dimension, dtype=np.float32)[[0] * count])
    with pytest.raises(VersionError, match=rf"the draft does not add up: {what}.*, the manifest says"):
        check_version(rewritten(builder, draft, "index.faiss", data), store=builder.store)


def test_tables_that_do_not_hold_what_the_manifest_counts_are_refused(builder: Any, draft: ArtifactRef) -> None:
    storage, path = file_of(builder, draft, "photos.parquet")
    table = from_parquet(storage.read(path), VERSION_PHOTOS, where="x")
    rewritten(builder, draft, "photos.parquet", to_parquet(table.slice(1), VERSION_PHOTOS))
    with pytest.raises(VersionError, match="11 rows of photos.parquet, the manifest says 12"):
        check_version(draft, store=builder.store)
    rows = table.to_pylist()
    rows[3]["uri"] += ".moved.png"
    rewritten(
        builder, draft, "photos.parquet", to_parquet(type(table).from_pylist(rows, VERSION_PHOTOS), VERSION_PHOTOS)
    )
    with pytest.raises(VersionError, match=r"the tables have the content \w{12}…, the manifest says \w{12}…"):
        check_version(draft, store=builder.store)


def test_publishing_sweeps_what_the_build_left_and_is_not_undone_by_what_cannot_be_swept(
    builder: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert builder.build(photos) == 1
    left = [str(p) for p in (Path(builder.store) / "runs").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert [p for p in left if "/locks/" not in p] == []
    (photos / "0.png").unlink()
    plan = builder.plan(photos)
    checked = check_version(builder.draft(plan), store=builder.store)

    def fails(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("tasks.steps.publish_version.discard_plan", fails)
    assert publish_version(checked.draft, store=builder.store, plan=plan) == 2
    assert current_number(open_store(builder.store)) == 2


def test_of_two_builds_planned_on_one_version_the_second_is_refused(builder: Any, photos: Path) -> None:
    first, second = builder.plan(photos), builder.plan(photos)
    drafts = [check_version(builder.draft(plan), store=builder.store).draft for plan in (first, second)]
    assert publish_version(drafts[0], store=builder.store, plan=first) == 1
    with pytest.raises(VersionError, match="version 1 was published while this build, planned on an empty store"):
        publish_version(drafts[1], store=builder.store, plan=second)
    assert published_numbers(open_store(builder.store)) == [1]
