import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.architectures import build_network
from models.pairs import PeopleSplit
from models.published import PUBLISHED_CARDS
from models.training import EpochRecord, PeopleMetrics, TrainingDivergedError, TrainingResult, TrainingSettings
from store.encoders import encoder_in_use, promote_encoder, read_encoder, stored_encoders
from store.errors import EncoderUnknownError, LookalikeError
from store.layout import open_store
from store.schemas import LISTING, PLAN, from_parquet
from tasks.steps import promotion
from tasks.steps import train_encoder as step
from tasks.steps.contract import Contract
from tasks.steps.draw_people import draw_people
from tasks.steps.find_faces import find_faces
from tasks.steps.labelled_faces import labelled_faces
from tasks.steps.list_photos import list_photos
from tasks.steps.plan_build import BuildPlan, plan_build
from tasks.steps.resolve_encoder import load_stored_encoder
from tasks.steps.train_encoder import NetworkSettings, TrainedEncoder, TrainingOrder, new_encoder, train_on_store
from tasks.steps.training_job import TrainingJob
from tasks.steps.training_network import keep_encoder
from tasks.steps.training_report import markdown_of_training

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
    real = step.run_job

    def watched(job: TrainingJob, *rest: Any) -> TrainingResult:
        HANDED_OVER.append((job.labels, job.split))
        return real(job, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "run_job", watched)
        order = TrainingOrder(network=NETWORK, settings=SETTINGS)
        result = train_on_store(plan, order, store=store, contract=Contract(), on_epoch=records.append)
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

    def told(job: TrainingJob, *_: Any) -> TrainingResult:
        moved = {name: t + 0.001 * (1 + after) if t.is_floating_point() else t for name, t in job.first_weights.items()}
        first, best = (PeopleMetrics(precision_at_1=value, verification_accuracy=0.5) for value in (before, after))
        return TrainingResult(
            state_dict=moved, epochs=(), best_epoch=1, metrics_before=first, metrics_after=best, stopped_by="epochs"
        )

    monkeypatch.setattr(step, "run_job", told)


ONE = TrainingSettings(epochs=1, batches_per_epoch=1, batch_people=2, batch_photos=2, augment=None)


def test_an_encoder_is_promoted_only_when_it_is_better_than_its_start_and_than_the_one_in_use(
    aligned: tuple[str, BuildPlan],
    trained: tuple[TrainedEncoder, list[EpochRecord]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, plan = aligned
    storage = open_store(store)
    storage.remove("encoders/CURRENT")

    def train(**told: float) -> TrainedEncoder:
        with pytest.MonkeyPatch.context() as patch:
            figures(patch, **told)
            order = TrainingOrder(start=trained[0].encoder, settings=ONE, promotion_margin=0.05)
            return train_on_store(plan, order, store=store, contract=Contract())

    worse = train(before=0.5, after=0.54)
    assert (worse.promoted, encoder_in_use(storage)) == (False, None)
    assert "0.540 on held-out people is not 0.05 better than 0.500 of the network it started from" in worse.why
    card = read_encoder(storage, worse.encoder).card
    assert card["promotion"]["promoted"] is False
    assert card["promotion"]["why"] == worse.why
    first = train(before=0.0, after=0.2)
    assert first.promoted
    assert encoder_in_use(storage) == first.encoder
    monkeypatch.setattr(promotion, "_precision_of", lambda *_: 0.6)
    second = train(before=0.0, after=0.64)
    assert (second.promoted, encoder_in_use(storage)) == (False, first.encoder)
    assert "0.640 on held-out people is not 0.05 better than 0.600 of the encoder in use" in second.why
    third = train(before=0.0, after=0.65)
    assert encoder_in_use(storage) == third.encoder
    assert {worse.encoder, second.encoder} <= set(stored_encoders(storage))


def test_a_truly_worse_encoder_is_kept_and_not_used(aligned: tuple[str, BuildPlan]) -> None:
    """Nothing scripted: the one in use has learnt, with another seed, the people that the new one is asked for."""
    store, plan = aligned
    storage = open_store(store)
    learns = replace(ONE, epochs=2, batches_per_epoch=15, batch_people=6, batch_photos=3, seed=8)
    good = train_on_store(plan, TrainingOrder(network=NETWORK, settings=learns), store=store, contract=Contract())
    promote_encoder(storage, good.encoder)
    bad = train_on_store(plan, TrainingOrder(network=NETWORK, settings=ONE), store=store, contract=Contract())
    assert not (set(good.held_out) & set(bad.held_out)), "take another seed"
    _, _, in_use = bad.promotion["table"]
    assert in_use["encoder"] == good.encoder
    assert in_use["precision_at_1"] > 0.8 > bad.metrics_after["precision_at_1"]
    assert not bad.promoted
    assert encoder_in_use(storage) == good.encoder
    assert bad.encoder in stored_encoders(storage)


def test_the_encoder_in_use_is_measured_on_the_same_people(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    storage = open_store(aligned[0])
    rows, labels = labelled_faces(storage, aligned[1], contract=Contract().id)
    result = trained[0]
    asked = [n for n, label in enumerate(labels) if label in set(result.held_out)]
    measured = promotion._precision_of(storage, result.encoder, [rows[n] for n in asked], [labels[n] for n in asked])
    assert measured == pytest.approx(result.metrics_after["precision_at_1"])


def test_curves_stand_beside_the_encoder_and_go_into_the_report_and_nothing_stays_under_runs(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    storage = open_store(aligned[0])
    result = trained[0]
    table = storage.read(storage.path_of(result.curves["csv"])).decode().splitlines()
    assert len(table) == 1 + result.epochs
    assert storage.read(storage.path_of(result.curves["png"])).startswith(b"\x89PNG")
    assert storage.names("runs/training") == []
    report = markdown_of_training(result, store=aligned[0])
    assert "data:image/png;base64," in report
    assert len(report) < 200_000
    assert f"{result.metrics_after['precision_at_1']:.4f}" in report


def test_a_training_that_comes_to_no_number_names_photos_and_keeps_nothing(
    aligned: tuple[str, BuildPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = aligned
    before = set(stored_encoders(open_store(store)))

    def diverge(*_: Any) -> None:
        raise TrainingDivergedError("training came to no number in epoch 1, batch 1", [0, 2])

    monkeypatch.setattr(step, "run_job", diverge)
    with pytest.raises(LookalikeError, match=r"no number in epoch 1, batch 1; among its 2 photos are /.*jpg, /.*jpg"):
        train_on_store(plan, TrainingOrder(settings=ONE), store=store, contract=Contract())
    assert set(stored_encoders(open_store(store))) == before


def test_an_architecture_that_is_none_is_refused(aligned: tuple[str, BuildPlan]) -> None:
    order = TrainingOrder(network=replace(NETWORK, architecture="vgg16"), settings=ONE)
    with pytest.raises(LookalikeError, match="this network cannot be trained: got architecture vgg16, wanted"):
        train_on_store(aligned[1], order, store=aligned[0], contract=Contract())


def test_training_starts_from_an_encoder_of_the_store(
    aligned: tuple[str, BuildPlan], trained: tuple[TrainedEncoder, list[EpochRecord]]
) -> None:
    store, plan = aligned
    result = train_on_store(
        plan, TrainingOrder(start=trained[0].encoder, settings=ONE), store=store, contract=Contract()
    )
    assert result.metrics_before["precision_at_1"] == pytest.approx(trained[0].metrics_after["precision_at_1"])
    with pytest.raises(EncoderUnknownError, match="unknown encoder 'nobody': give one of inception-resnet-v1:vggface2"):
        train_on_store(plan, TrainingOrder(start="nobody", settings=ONE), store=store, contract=Contract())


def test_training_starts_from_a_resnet50_of_things_at_its_own_size_and_pixels(
    aligned: tuple[str, BuildPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published ImageNet weights are: 224 pixels, ImageNet's mean, 2,048 dimensions, no head."""
    store, plan = aligned
    network = build_network("resnet50", 2048)
    network.initialise(3)
    imagenet = keep_encoder(open_store(store), PUBLISHED_CARDS["resnet50"], network, extra={})
    seen: list[TrainingJob] = []

    def told(job: TrainingJob, *_: Any) -> TrainingResult:
        seen.append(job)
        first, best = (PeopleMetrics(precision_at_1=value, verification_accuracy=0.5) for value in (0.1, 0.9))
        moved = {name: t + 0.001 if t.is_floating_point() else t for name, t in job.first_weights.items()}
        return TrainingResult(moved, 1, (), first, best, "epochs")

    monkeypatch.setattr(step, "run_job", told)
    order = TrainingOrder(start=imagenet, settings=replace(ONE, backbone_rate=0.1))
    result = train_on_store(plan, order, store=store, contract=Contract())
    assert seen[0].crops_NHWC.shape[1:] == (224, 224, 3)
    assert seen[0].card.input == PUBLISHED_CARDS["resnet50"].input
    card = read_encoder(open_store(store), result.encoder).card
    assert (card["architecture"], card["dimension"]) == ("resnet50", 2048)
    assert "licence" not in card
    assert card["training"]["started_from"] == imagenet


def test_one_face_a_photo_and_its_folder_s_name_are_learned_from(people: Path, aligned: tuple[str, BuildPlan]) -> None:
    store, plan = aligned
    rows, labels = labelled_faces(open_store(store), plan, contract=Contract().id)
    assert len(rows) == len(labels) == len({row["photo_sha256"] for row in rows})
    assert len(rows) >= 30
    assert all(Path(row["uri"]).parent.name == label for row, label in zip(rows, labels, strict=True))


def test_what_is_learned_from_does_not_hang_on_how_the_photos_lie_in_shards(
    people: Path, aligned: tuple[str, BuildPlan], tmp_path: Path
) -> None:
    store, plan = aligned
    copied = Path(shutil.copytree(people, tmp_path / "people", copy_function=shutil.copyfile))
    twin = sorted(copied.iterdir())[0]
    shutil.copyfile(next(twin.iterdir()), copied / sorted(copied.iterdir())[-1].name / "a-copy.png")
    other = str(tmp_path / "store")
    again = plan_build(
        list_photos(str(copied), store=other),
        store=other,
        contract=Contract(),
        encoder=None,
        labels="folder",
        shard_photos=5,
    )
    for ref in again.requests:
        find_faces(ref, store=other, contract=Contract())
    assert len(again.requests) > len(plan.requests)
    (rows, labels), (rows_again, labels_again) = (
        labelled_faces(open_store(s), p, contract=Contract().id) for s, p in ((store, plan), (other, again))
    )
    assert labels == labels_again
    assert [r["photo_sha256"] for r in rows] == [r["photo_sha256"] for r in rows_again]


def test_too_few_people_are_refused(builder: Any, drawn_people: Path) -> None:
    one = sorted(drawn_people.iterdir())[0]
    plan = builder.plan(one, labels="folder")
    for ref in plan.requests:
        find_faces(ref, store=builder.store, contract=builder.contract)
    with pytest.raises(
        LookalikeError, match=rf"{one} cannot be trained on: people split: got 0 people.*folder of their"
    ):
        train_on_store(plan, TrainingOrder(settings=ONE), store=builder.store, contract=builder.contract)


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
