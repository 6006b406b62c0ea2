import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from models.detection import DetectionSettings, PhotoFaces
from models.mtcnn.cascade import Face
from models.mtcnn.nets import CascadeNets
from models.photo import Photo
from store.index_choice import AskedBudget
from store.refs import ArtifactRef
from tasks.steps.check_version import check_version
from tasks.steps.compact_shards import compact_shards
from tasks.steps.compare_listing import LookAt
from tasks.steps.contract import Contract
from tasks.steps.embed_faces import embed_faces
from tasks.steps.find_faces import FoundFaces, find_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import BuildPlan, plan_build, with_budget
from tasks.steps.publish_version import publish_version
from tasks.steps.resolve_encoder import EncoderRef, resolve_encoder
from tasks.steps.train_encoder import NetworkSettings, new_encoder
from tasks.steps.write_index import write_index


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small nets on a shared machine are fastest so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Builder:
    """A build step by step, as the flow does it, without Prefect."""

    store: str
    contract: Contract
    encoder: EncoderRef
    shard_photos: int = 8

    def plan(
        self, source: Path | str, *, labels: Literal["folder"] | None = None, look_at: LookAt = "stamps"
    ) -> BuildPlan:
        return plan_build(
            list_photos(str(source), store=self.store),
            store=self.store,
            contract=self.contract,
            encoder=self.encoder.id,
            labels=labels,
            shard_photos=self.shard_photos,
            look_at=look_at,
            may_compact=True,
        )

    def draft(self, plan: BuildPlan) -> ArtifactRef:
        found = [find_faces(ref, store=self.store, contract=self.contract) for ref in plan.requests + plan.finished]
        found += [FoundFaces(shard=ref, computed=False) for ref in plan.kept]
        for ref in plan.compactions:
            assert plan.parent is not None
            merged = compact_shards(
                ref, store=self.store, contract=self.contract.id, parent=plan.parent, encoder=self.encoder
            )
            found.append(FoundFaces(shard=merged.shard, computed=False))
        for shard in found:
            embed_faces(shard, store=self.store, contract=self.contract.id, encoder=self.encoder)
        return write_index(plan, store=self.store, contract=self.contract, encoder=self.encoder)

    def build(
        self, source: Path | str, *, labels: Literal["folder"] | None = None, look_at: LookAt = "stamps"
    ) -> int | None:
        plan = self.plan(source, labels=labels, look_at=look_at)
        checked = check_version(self.draft(plan), store=self.store)
        return publish_version(checked.draft, store=self.store, plan=plan)


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EncoderRef]:
    """A store that holds a small untrained encoder and nothing else."""
    store = tmp_path_factory.mktemp("encoder") / "store"
    settings = NetworkSettings(width=0.25, dimension=32)
    return store, resolve_encoder(new_encoder(str(store), settings=settings), store=str(store))


@pytest.fixture
def builder(small_encoder: tuple[Path, EncoderRef], tmp_path: Path) -> Builder:
    """For a store of its own with the small encoder in it."""
    store, encoder = small_encoder
    shutil.copytree(store, tmp_path / "store")
    return Builder(store=str(tmp_path / "store"), contract=Contract(), encoder=encoder)


@pytest.fixture(scope="session")
def built_store(
    drawn_people: Path, small_encoder: tuple[Path, EncoderRef], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EncoderRef]:
    """Version 1 of the drawn people, labelled; not to be changed."""
    empty, encoder = small_encoder
    store = tmp_path_factory.mktemp("built") / "store"
    shutil.copytree(empty, store)
    Builder(store=str(store), contract=Contract(), encoder=encoder).build(drawn_people, labels="folder")
    return store, encoder


@pytest.fixture
def built(built_store: tuple[Path, EncoderRef], tmp_path: Path) -> Builder:
    """A copy of the built store that a test may change."""
    store, encoder = built_store
    shutil.copytree(store, tmp_path / "built")
    return Builder(store=str(tmp_path / "built"), contract=Contract(), encoder=encoder)


@pytest.fixture(scope="session")
def two_versions(
    built_store: tuple[Path, EncoderRef], drawn_people: Path, tmp_path_factory: pytest.TempPathFactory
) -> Builder:
    """Version 1 of the drawn people and version 2 with three photos more, one of them a duplicate; not to be changed."""
    store, encoder = built_store
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(store, folder / "store")
    for n, photo in enumerate(sorted(drawn_people.rglob("*.jpg"))[:3]):
        (folder / "more").mkdir(exist_ok=True)
        if n == 0:
            shutil.copy(photo, folder / "more" / "twin.jpg")
        else:
            with Image.open(photo) as image:
                image.resize((image.width * 2, image.height * 2)).save(folder / "more" / f"large{n}.jpg")
    builder = Builder(store=str(folder / "store"), contract=Contract(), encoder=encoder)
    builder.build(folder / "more")
    return builder


@pytest.fixture(scope="session")
def make_builder() -> type[Builder]:
    """For stores that more than one test looks at."""
    return Builder


@pytest.fixture(scope="session")
def middle_faces() -> Callable[..., list[PhotoFaces]]:
    """A detector that needs no face: the middle half of a picture, but of a black one nothing."""

    def detect(photos: Sequence[Photo], *, nets: CascadeNets, settings: DetectionSettings) -> list[PhotoFaces]:
        return [PhotoFaces(faces=detect_one(photo.pixels), rotation=0) for photo in photos]

    def detect_one(photo_HWC: Any) -> list[Face]:
        if not photo_HWC.any():
            return []
        h, w = photo_HWC.shape[:2]
        landmarks = np.array([(0.4, 0.4), (0.6, 0.4), (0.5, 0.5), (0.42, 0.6), (0.58, 0.6)]) * (w, h)
        box = np.array([w / 4, h / 4, 3 * w / 4, 3 * h / 4], np.float32)
        return [Face(box=box, score=0.9, landmarks=landmarks.astype(np.float32))]

    return detect


@pytest.fixture
def easy_faces(monkeypatch: pytest.MonkeyPatch, middle_faces: Callable[..., list[PhotoFaces]]) -> None:
    """Find faces by `middle_faces`."""
    monkeypatch.setattr("tasks.steps.find_faces.find_in_photos", middle_faces)


@pytest.fixture(scope="session")
def paint() -> Callable[..., Path]:
    """Writes a small picture of noise, another one for each seed; seed None is black."""

    def write(path: Path, seed: int | None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(1, 255, (48, 48, 3), np.uint8)
        Image.fromarray(noise * (seed is not None)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def approximate(
    small_encoder: tuple[Path, EncoderRef],
    middle_faces: Callable[..., list[PhotoFaces]],
    paint: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Builder, Path]:
    """A store with one approximate version of 96 photos, and their folder; not to be changed."""
    folder = tmp_path_factory.mktemp("approximate")
    shutil.copytree(small_encoder[0], folder / "store")
    for n in range(96):
        paint(folder / "photos" / f"{n}.png", n)
    builder = Builder(store=str(folder / "store"), contract=Contract(), encoder=small_encoder[1], shard_photos=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.steps.find_faces.find_in_photos", middle_faces)
        patch.setattr("store.index_choice.FEWEST_FOR_CODES", 32)
        plan = with_budget(
            builder.plan(folder / "photos"), AskedBudget(memory_bytes=9_000)
        )  # exact search holds 13,056
        checked = check_version(builder.draft(plan), store=builder.store)
        publish_version(checked.draft, store=builder.store, plan=plan)
    return builder, folder / "photos"
