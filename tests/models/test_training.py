import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models import training
from models.card import BoxMargin, EncoderCard
from models.decoder import Decoder
from models.encoder import load_encoder
from models.inception_resnet_v1 import InceptionResnetV1, architecture_name
from models.metrics import precision_at_1
from models.pairs import PeopleSplit, split_people
from models.people import PeopleMetrics, embed_people, measure_people, select_people
from models.training import (
    EpochRecord,
    RunOptions,
    StepsDone,
    TrainingResult,
    TrainingSettings,
    train_encoder,
    training_input,
)

PEOPLE, PHOTOS, PX = 16, 4, 16
LABELS = [f"p{person:02d}" for person in range(PEOPLE) for _ in range(PHOTOS)]
SPLIT = split_people(LABELS, validation_share=0.25, held_out_share=0.25, seed=0)
SETTINGS = TrainingSettings(
    epochs=3, batches_per_epoch=8, batch_people=4, batch_photos=3, learning_rate=0.01, margin=1.5
)


def draw_crops() -> np.ndarray:
    """Each person is a pattern of four colours; a photo of it is in another light and noisy."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(60, 195, (PEOPLE, 1, 2, 2, 3)).repeat(PX // 2, axis=2).repeat(PX // 2, axis=3)
    light = rng.uniform(-80, 80, (PEOPLE, PHOTOS, 1, 1, 3))
    noise = rng.normal(0, 12, (PEOPLE, PHOTOS, PX, PX, 3))
    return (patterns + light + noise).clip(0, 255).astype(np.uint8).reshape(-1, PX, PX, 3)


CROPS = draw_crops()


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1)


def small_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(392, 12),
        nn.BatchNorm1d(12),
        Unit(),
    )


def train(
    settings: TrainingSettings = SETTINGS, crops: np.ndarray = CROPS, network: nn.Module | None = None, **options: Any
) -> TrainingResult:
    network = small_network() if network is None else network
    torch.manual_seed(1)
    decoder = options.pop("decoder", None) or Decoder(12, PX, PX, channels=2)
    split = options.pop("split", SPLIT)
    return train_encoder(
        crops, LABELS, network=network, decoder=decoder, settings=settings, split=split, run=RunOptions(**options)
    )


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_seconds(result: TrainingResult) -> list[EpochRecord]:
    return [replace(record, seconds=0, faces_per_second=0, seconds_left=0) for record in result.epochs]


def with_other_faces_of(people: tuple[str, ...]) -> np.ndarray:
    crops = CROPS.copy()
    crops[np.isin(LABELS, people)] = np.random.default_rng(9).integers(0, 256, crops[0].shape, dtype=np.uint8)
    return crops


def test_losses_fall_and_the_people_learnt_from_are_told_apart() -> None:
    network = small_network()
    learnt = select_people(CROPS, LABELS, SPLIT.train)
    before, _ = measure_people(network, learnt, margin=SETTINGS.margin, device="cpu")
    result = train(replace(SETTINGS, epochs=8, rebuild_weight=1.0, augment=None), network=network)
    after, _ = measure_people(network, learnt, margin=SETTINGS.margin, device="cpu")
    assert result.epochs[-1].loss < 0.5 * result.epochs[0].loss
    assert result.epochs[-1].reconstruction_loss < 0.9 * result.epochs[0].reconstruction_loss
    assert before.precision_at_1 < 0.8
    assert after.precision_at_1 > 0.95
    assert result.stopped_by == "epochs"


def test_equal_arguments_give_equal_results_whatever_torchs_random_state() -> None:
    first = train()
    torch.rand(7)
    again = train(network=small_network())
    assert equal(first.state_dict, again.state_dict)
    assert without_seconds(first) == without_seconds(again)
    assert not equal(first.state_dict, train(replace(SETTINGS, seed=1)).state_dict)


def test_held_out_people_change_nothing_but_the_report() -> None:
    plain, other = train(), train(crops=with_other_faces_of(SPLIT.held_out))
    assert equal(plain.state_dict, other.state_dict)
    assert without_seconds(plain) == without_seconds(other)
    assert plain.metrics_after != other.metrics_after


def test_nothing_is_learnt_from_validation_people() -> None:
    plain, other = train(), train(crops=with_other_faces_of(SPLIT.validation))
    for mine, theirs in zip(plain.epochs, other.epochs, strict=True):
        assert (mine.loss, mine.reconstruction_loss) == (
            theirs.loss,
            theirs.reconstruction_loss,
        )
        assert mine.validation_loss != theirs.validation_loss


def test_people_outside_the_split_are_left_out() -> None:
    fewer = replace(SPLIT, train=SPLIT.train[1:])
    plain, other = train(split=fewer), train(split=fewer, crops=with_other_faces_of(SPLIT.train[:1]))
    assert equal(plain.state_dict, other.state_dict)
    assert not equal(plain.state_dict, train().state_dict)


def test_metrics_are_those_of_the_weights_before_and_after() -> None:
    network = small_network()
    held_out = select_people(CROPS, LABELS, SPLIT.held_out)
    before, _ = measure_people(network, held_out, margin=SETTINGS.margin, device="cpu")
    result = train(network=network)
    fresh = small_network(5)
    fresh.load_state_dict(result.state_dict)
    after, _ = measure_people(fresh, held_out, margin=SETTINGS.margin, device="cpu")
    assert (result.metrics_before, result.metrics_after) == (before, after)


def test_trained_weights_serve_an_encoder_that_embeds_alike() -> None:
    crops = CROPS.repeat(5, axis=1).repeat(5, axis=2)
    network = InceptionResnetV1(0.25, 16)
    network.initialise(0)
    settings = replace(SETTINGS, epochs=1, batches_per_epoch=2)
    result = train_encoder(
        crops, LABELS, network=network, decoder=Decoder(16, 80, 80, channels=2), settings=settings, split=SPLIT
    )
    card = EncoderCard(
        format=1,
        input=training_input(80, 80),
        geometry=BoxMargin(box_margin=0.2),
        mirror_average=False,
        dimension=16,
        architecture=architecture_name(0.25),
    )
    encoder = load_encoder(card, safetensors.torch.save(result.state_dict))
    held_out = select_people(crops, LABELS, SPLIT.held_out)
    embeddings = encoder.embed(held_out.crops)
    np.testing.assert_allclose(embeddings, embed_people(network, held_out, device="cpu"), atol=1e-5)
    assert precision_at_1(embeddings, held_out.labels) == result.metrics_after.precision_at_1


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[float, float]]], None]:
    """Lets a test say what the validation people's precision@1 and loss shall be, epoch by epoch."""

    def script(validation: list[tuple[float, float]]) -> None:
        unknown = (0.0, 9.0)
        answers: Iterator[tuple[float, float]] = iter([unknown, *validation, unknown])

        def measured(*_: Any, **__: Any) -> tuple[PeopleMetrics, float]:
            precision, loss = next(answers)
            return PeopleMetrics(precision, 0.5), loss

        monkeypatch.setattr(training, "measure_people", measured)

    return script


@pytest.mark.parametrize(
    ("validation", "best"),
    [
        ([(0.2, 0.5), (0.9, 0.5), (0.3, 0.1)], 2),
        ([(0.4, 0.5), (0.4, 0.3), (0.4, 0.4)], 2),
        ([(0.4, 0.3), (0.4, 0.3), (0.4, 0.3)], 1),
        ([(0.1, 0.5), (0.2, 0.5), (0.3, 0.9)], 3),
        ([(0.0, 99.0), (0.0, 99.0), (0.0, 99.0)], 1),
    ],
    ids=["highest precision", "then lowest loss", "then earliest", "last", "even a bad one"],
)
def test_the_best_epochs_weights_are_kept(scripted: Any, validation: list[tuple[float, float]], best: int) -> None:
    scripted(validation)
    network = small_network()
    seen: list[dict[str, Tensor]] = []
    result = train(network=network, on_epoch=lambda _: seen.append(copy.deepcopy(network.state_dict())))
    assert result.best_epoch == best
    assert equal(result.state_dict, seen[best - 1])
    assert equal(dict(network.state_dict()), result.state_dict)
    assert not equal(seen[0], seen[1])
    assert not network.training


def test_epochs_are_told_as_they_end() -> None:
    told: list[EpochRecord] = []
    result = train(on_epoch=told.append)
    assert tuple(told) == result.epochs
    assert [record.epoch for record in told] == [1, 2, 3]
    assert [record.steps for record in told] == [8, 8, 8]
    assert told[0].seconds < told[1].seconds < told[2].seconds


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    rates = [record.learning_rate for record in train(replace(SETTINGS, epochs=8, warm_up=0.4)).epochs]
    assert rates[0] < rates[1] < rates[2] < SETTINGS.learning_rate
    assert rates[3] > rates[4] > rates[5] > rates[6] > rates[7]
    assert rates[7] < 0.01 * SETTINGS.learning_rate


def test_time_running_out_ends_training_with_the_step_and_still_reports() -> None:
    result = train(replace(SETTINGS, max_seconds=1e-6))
    assert [record.steps for record in result.epochs] == [1]
    assert result.stopped_by == "max_seconds"
    assert result.epochs[0].learning_rate < 0.01 * SETTINGS.learning_rate


def test_without_rebuilding_the_decoder_is_left_alone() -> None:
    decoder = Decoder(12, PX, PX, channels=2)
    before = copy.deepcopy(decoder.state_dict())
    result = train(replace(SETTINGS, rebuild_weight=0.0, weight_decay=0.0), decoder=decoder)
    assert equal(dict(decoder.state_dict()), dict(before))
    assert all(record.reconstruction_loss == 0 for record in result.epochs)


@pytest.mark.parametrize("loss", ["triplet", "classification"])
def test_the_other_losses_tell_the_people_learnt_from_apart(loss: Any) -> None:
    network = small_network()
    learnt = select_people(CROPS, LABELS, SPLIT.train)
    before, _ = measure_people(network, learnt, margin=SETTINGS.margin, device="cpu")
    train(replace(SETTINGS, epochs=8, loss=loss, rebuild_weight=0, augment=None), network=network)
    after, _ = measure_people(network, learnt, margin=SETTINGS.margin, device="cpu")
    assert before.precision_at_1 < 0.8
    assert after.precision_at_1 > 0.95


def test_training_ends_when_no_epoch_is_better_for_some_time(scripted: Any) -> None:
    scripted([(0.5, 0.5), (0.4, 0.5), (0.4, 0.5), (0.9, 0.5), (0.9, 0.5)])
    result = train(replace(SETTINGS, epochs=5, batches_per_epoch=1, patience=2))
    assert (result.stopped_by, len(result.epochs), result.best_epoch) == ("patience", 3, 1)


def test_patience_starts_anew_with_every_better_epoch(scripted: Any) -> None:
    scripted([(0.1, 0.5), (0.1, 0.5), (0.2, 0.5), (0.2, 0.5), (0.3, 0.5)])
    result = train(replace(SETTINGS, epochs=5, batches_per_epoch=1, patience=2))
    assert (result.stopped_by, result.best_epoch) == ("epochs", 5)


def test_steps_are_told_with_their_pace() -> None:
    told: list[StepsDone] = []
    train(on_step=told.append)
    assert [(steps.done, steps.total) for steps in told] == [(n, 24) for n in range(1, 25)]
    assert all(steps.faces_per_second > 0 for steps in told)


def test_an_epoch_says_how_fast_it_went_and_how_long_the_rest_takes() -> None:
    epochs = train().epochs
    for record in epochs:
        assert record.faces_per_second == pytest.approx(12 * 8 * record.epoch / record.seconds, rel=0.01, abs=0.1)
        assert record.seconds_left == pytest.approx(record.seconds / record.epoch * (3 - record.epoch), abs=0.1)


def test_strangers_and_no_augmentation_train_too() -> None:
    labels = [*LABELS[:-PHOTOS], *(f"stranger {index}" for index in range(PHOTOS))]
    split = PeopleSplit(
        train=tuple(sorted({*LABELS[:32], *labels[-PHOTOS:]})),
        validation=tuple(sorted(set(LABELS[32:48]))),
        held_out=tuple(sorted(set(LABELS[48:60]))),
    )
    settings = replace(SETTINGS, batch_strangers=2, augment=None, epochs=1)
    result = train_encoder(
        CROPS, labels, network=small_network(), decoder=Decoder(12, PX, PX, channels=2), settings=settings, split=split
    )
    assert np.isfinite(result.epochs[0].loss)


@pytest.mark.parametrize(
    "crops", [CROPS[:-1], CROPS.astype(np.float32), CROPS[:, :12]], ids=["one short", "float", "low"]
)
def test_crops_that_do_not_fit_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"crops: got {crops.dtype} .*wanted uint8 \(64, 16, 16, 3\)"):
        train(crops=crops)


@pytest.mark.parametrize("name", ["train", "validation", "held_out"])
def test_a_group_that_cannot_be_paired_is_refused_before_anything_is_learnt(name: str) -> None:
    network = small_network()
    before = copy.deepcopy(network.state_dict())
    split = replace(SPLIT, **{name: getattr(SPLIT, name)[:1]})
    with pytest.raises(ValueError, match=rf"{name.replace('_', '-')} people: pairs: got 1 people"):
        train(network=network, split=split)
    assert equal(dict(network.state_dict()), dict(before))


def test_torch_computes_with_the_threads_asked_for_and_then_as_before() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    train(replace(SETTINGS, epochs=1, threads=before + 1), on_epoch=lambda _: seen.append(torch.get_num_threads()))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
