import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.pairs import PeopleSplit
from models.training import EpochRecord, PeopleMetrics, TrainingResult, TrainingSettings
from store.encoders import encoder_in_use, read_encoder, stored_encoders
from store.errors import EncoderUnknownError, LookalikeError
from store.layout import open_store
from store.schemas import LISTING, PLAN, from_parquet
from tasks.steps import train_encoder as step
from tasks.steps.contract import Contract
from tasks.steps.draw_people import draw_people
from tasks.steps.find_faces import find_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import BuildPlan, plan_build
from tasks.steps.resolve_encoder import load_stored_encoder
from tasks.steps.train_encoder import NetworkSettings, TrainedEncoder, new_encoder, train_on_store

NETWORK = NetworkSettings(width=0.25, dimension=16)
SETTINGS = TrainingSettings(epochs=2, batches_per_epoch=1, batch_people=3, batch_photos=2, augment=None)

HANDED_OVER: list[tuple[list[str], PeopleSplit]] = []
"""What the module's one training was given: everybody's label, and the split."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "people"
    draw_people(folder, people=range(12), views=range(3), seed=8, workers=1)
    return folder


@pytest.fixture(scope="module")
def aligned(people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, BuildPlan]:
    store = str(tmp_path_factory.mktemp("trained") / "store")
    plan = plan_build(
        list_photos(str(people), store=store), store=store, contract=Contract(), encoder=None, labels="folder"
    )
    for ref in plan.requests:
        find_faces(ref, store=store, contract=Contract())
    return store, plan


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(aligned: tuple[str, BuildPlan]) -> tuple[TrainedEncoder, list[EpochRecord]]:
    store, plan = aligned
    records: list[EpochRecord] = []
    real = step.train_encoder

    def watched(crops_NHWC: Any, labels: list[str], **rest: Any) -> TrainingResult:
        HANDED_OVER.append((labels, rest["split"]))
        return real(crops_NHWC, labels, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "train_encoder", watched)
        result = train_on_store(
            plan, store=store, contract=Contract(), network=NETWORK, settings=SETTINGS, on_epoch=records.append
        )
    return result, records


def test_the_trained_encoder_stands_in_the_store_and_embeds(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    storage = open_store(aligned[0])
    result, records = trained
    assert result.encoder in stored_encoders(storage)
    net = load_stored_encoder(storage, result.encoder)
    faces = np.random.default_rng(0).integers(0, 255, (2, 80, 80, 3), np.uint8)
    np.testing.assert_allclose(np.linalg.norm(net.embed(faces), axis=1), 1, atol=1e-5)
    assert net.card.dimension == 16
    assert len(records) == result.epochs == 2
    assert 1 <= result.best_epoch <= 2
    card = read_encoder(storage, result.encoder).card
    assert card["metrics"] == {"before": result.metrics_before, "after": result.metrics_after}


def test_people_never_cross_and_their_names_stay_out_of_card_and_answer(
    people: Path, aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    labels, split = HANDED_OVER[0]
    groups = [set(split.train), set(split.validation), set(split.held_out)]
    names = {folder.name for folder in people.iterdir()}
    assert set(labels) == set.union(*groups) == names
    assert sum(map(len, groups)) == len(names)
    result = trained[0]
    assert set(result.held_out) == groups[2]
    shown = json.dumps(result.as_json()) + json.dumps(read_encoder(open_store(aligned[0]), result.encoder).card)
    assert result.as_json()["held_out_people"] == len(result.held_out)
    assert not [name for name in names if name in shown.replace(str(people), "")]


def figures(monkeypatch: pytest.MonkeyPatch, *, before: float, after: float) -> None:
    """A training that takes no time, moves the weights a little and reports these figures."""

    def told(*_: Any, network: torch.nn.Module, **__: Any) -> TrainingResult:
        with torch.no_grad():
            next(network.parameters()).add_(0.001 * (1 + after))
        first, best = (PeopleMetrics(precision_at_1=value, verification_accuracy=0.5) for value in (before, after))
        return TrainingResult(
            state_dict={}, epochs=(), best_epoch=1, metrics_before=first, metrics_after=best, stopped_by="epochs"
        )

    monkeypatch.setattr(step, "train_encoder", told)


ONE = TrainingSettings(epochs=1, batches_per_epoch=1, batch_people=2, batch_photos=2, augment=None)


def test_an_encoder_is_promoted_only_when_it_is_better_than_its_start_and_than_the_one_in_use(
    aligned: tuple[str, BuildPlan],
    trained: tuple[TrainedEncoder, list[EpochRecord]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, plan = aligned
    storage = open_store(store)
    storage.remove("encoders/CURRENT")

    monkeypatch.setattr(step, "_inputs", lambda *_: np.zeros((0, 80, 80, 3), np.uint8))

    def train(**told: float) -> TrainedEncoder:
        with pytest.MonkeyPatch.context() as patch:
            figures(patch, **told)
            return train_on_store(plan, store=store, contract=Contract(), start=trained[0].encoder, settings=ONE)

    worse = train(before=0.5, after=0.5)
    assert (worse.promoted, encoder_in_use(storage)) == (False, None)
    assert worse.why == "kept, not promoted: precision@1 0.500 is no better than 0.500 before"
    first = train(before=0.0, after=0.2)
    assert first.promoted
    assert encoder_in_use(storage) == first.encoder
    assert "rose from 0.000 to 0.200" in first.why
    monkeypatch.setattr(step, "_precision_of", lambda *_, **__: 0.6)
    second = train(before=0.0, after=0.6)
    assert (second.promoted, encoder_in_use(storage)) == (False, first.encoder)
    assert second.why == "kept, not promoted: precision@1 0.600, the encoder in use has 0.600"
    third = train(before=0.0, after=0.61)
    assert encoder_in_use(storage) == third.encoder
    assert {worse.encoder, second.encoder} <= set(stored_encoders(storage))


def test_the_encoder_in_use_is_measured_on_the_same_people(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    store, plan = aligned
    rows, labels = step._labelled_rows(open_store(store), plan, contract=Contract().id)
    result = trained[0]
    measured = step._precision_of(
        open_store(store), result.encoder, rows=rows, labels=labels, people=set(result.held_out)
    )
    assert measured == pytest.approx(result.metrics_after["precision_at_1"])


def test_training_starts_from_an_encoder_of_the_store(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    store, plan = aligned
    result = train_on_store(plan, store=store, contract=Contract(), start=trained[0].encoder, settings=ONE)
    assert result.metrics_before["precision_at_1"] == pytest.approx(trained[0].metrics_after["precision_at_1"])
    with pytest.raises(EncoderUnknownError, match="has no encoder nobody"):
        train_on_store(plan, store=store, contract=Contract(), start="nobody", settings=ONE)


def test_one_face_a_photo_and_its_folder_s_name_are_learned_from(people: Path, aligned: tuple[str, BuildPlan]) -> None:
    store, plan = aligned
    rows, labels = step._labelled_rows(open_store(store), plan, contract=Contract().id)
    assert len(rows) == len(labels) == len({row["photo_sha256"] for row in rows})
    assert len(rows) >= 30
    assert all(Path(row["uri"]).parent.name == label for row, label in zip(rows, labels, strict=True))


def test_too_few_people_are_refused(builder: Any, drawn_people: Path) -> None:
    one = sorted(drawn_people.iterdir())[0]
    plan = builder.plan(one, labels="folder")
    for ref in plan.requests:
        find_faces(ref, store=builder.store, contract=builder.contract)
    with pytest.raises(
        LookalikeError, match=rf"{one} cannot be trained on: people split: got 0 people.*folder of their"
    ):
        train_on_store(plan, store=builder.store, contract=builder.contract, settings=ONE)


def test_new_networks_differ_by_their_seed_only(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    first = new_encoder(store, settings=NETWORK)
    assert new_encoder(store, settings=NETWORK) == first
    assert new_encoder(store, settings=replace(NETWORK, seed=1)) != first
    assert read_encoder(open_store(store), first).card["name"] == "untrained, seed 0"


def test_a_listing_is_kept_under_runs_with_every_photo(people: Path, tmp_path: Path) -> None:
    listed = list_photos(f"{people}/", store=str(tmp_path / "store"))
    storage = open_store(str(tmp_path / "store"))
    path = storage.path_of(listed.listing.uri)
    assert path.startswith("runs/listings/")
    rows = from_parquet(storage.read(path, sha256=listed.listing.sha256), LISTING, where="x").to_pylist()
    assert [row["uri"] for row in rows] == sorted(str(p) for p in people.rglob("*.jpg"))
    assert {row["source"] for row in rows} == {listed.source} == {str(people)}
    assert len(rows) == listed.listing.rows == 36
    assert set(LISTING.names) < set(PLAN.names)
