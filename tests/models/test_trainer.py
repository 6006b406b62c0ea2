import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.decoder import Decoder
from models.pair_loss import PairLoss
from models.people import PeopleCrops, training_input
from models.preprocess_tensors import normalise_pixels
from models.team import ALONE
from models.trainer import Trainer, TrainingDivergedError
from models.training_settings import TrainingSettings

PX = 16
SETTINGS = TrainingSettings(
    epochs=2, batches_per_epoch=3, batch_people=6, batch_photos=4, margin=1.5, learning_rate=0.01, rebuild_weight=0.5
)


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=1)


def people() -> PeopleCrops:
    rng = np.random.default_rng(0)
    return PeopleCrops(rng.integers(0, 256, (40, PX, PX, 3), np.uint8), np.arange(40, dtype=np.int64) // 4)


def network() -> nn.Sequential:
    """Without batch-norm, so that how a batch is cut cannot matter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 12), Unit())


def decoder() -> Decoder:
    torch.manual_seed(1)
    made = Decoder(12, PX, PX, channels=2)
    for block in made.blocks:
        block.bn = nn.Identity()  # type: ignore[assignment]
    return made


def trainer(settings: TrainingSettings = SETTINGS, net: nn.Module | None = None, dec: Decoder | None = None) -> Trainer:
    net, dec = net or network(), dec or decoder()
    return Trainer(
        people(), network=net, decoder=dec, settings=settings, spec=training_input(PX, PX), device="cpu", team=ALONE
    )


def weights_after(settings: TrainingSettings, net: nn.Module | None = None) -> tuple[dict[str, Tensor], Trainer]:
    net = net or network()
    made = trainer(settings, net)
    made.run_epoch(lambda: None)
    return dict(net.state_dict()), made


def test_the_step_cut_at_the_embeddings_has_the_gradient_of_the_whole_pair_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oracle: the loss of the paper over the whole batch, in one graph."""
    net, dec = network(), decoder()
    made = trainer(SETTINGS, net, dec)
    oracle_net, oracle_dec = copy.deepcopy(net), copy.deepcopy(dec)
    rows, changes = drawn = made._batches.draw()
    monkeypatch.setattr(made._batches, "draw", lambda: drawn)
    metric, rebuilt = made._step()

    from models.augment import apply_changes

    assert changes is not None
    crops = apply_changes(people().pixels(rows, "cpu") / 255, changes)
    emb = oracle_net(normalise_pixels(crops * 255, training_input(PX, PX)))
    terms = PairLoss(margin=1.5, rebuild_weight=0.5).all_pairs(
        emb,
        torch.from_numpy(people().labels[rows]),
        rebuilt_NCHW=oracle_dec(emb),
        crops_NCHW=crops,
        hardest_share=SETTINGS.hardest_share,
    )
    terms.total.backward()
    assert metric == pytest.approx(terms.contrastive.item(), rel=1e-5)
    assert rebuilt == pytest.approx(terms.reconstruction.item(), rel=1e-5)
    for mine, theirs in ((net, oracle_net), (dec, oracle_dec)):
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("loss", ["contrastive", "triplet", "classification"])
def test_a_batch_in_parts_teaches_what_the_whole_batch_teaches(parts: int, loss: Any) -> None:
    whole, _ = weights_after(replace(SETTINGS, loss=loss))
    cut, _ = weights_after(replace(SETTINGS, loss=loss, micro_batches=parts))
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, rtol=1e-3, atol=2e-4)


class Hungry(nn.Module):
    """Runs out of memory over more than so many faces at a time."""

    def __init__(self, net: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.net, self.most, self.error = net, most, error
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(len(x))
            if len(x) > self.most:
                raise self.error
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "python", "allocator"],
)
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_teaches_the_same(error: Exception) -> None:
    whole, _ = weights_after(SETTINGS)
    hungry = Hungry(network(), 7, error)
    made = trainer(SETTINGS, hungry)
    monkeypatched = made._recalibration_batches
    made._recalibration_batches = lambda: iter(())  # type: ignore[method-assign]
    assert monkeypatched is not None
    losses = made.run_epoch(lambda: None)
    assert (losses.steps, made.parts) == (3, 4)
    assert max(hungry.seen[2:]) <= 7 or hungry.seen[:2] == [24, 12]
    for name, tensor in whole.items():
        torch.testing.assert_close(hungry.net.state_dict()[name], tensor, rtol=1e-3, atol=2e-4)


def test_memory_that_not_even_a_few_faces_fit_into_ends_the_training() -> None:
    hungry = Hungry(network(), 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        trainer(SETTINGS, hungry).run_epoch(lambda: None)
    assert min(hungry.seen) >= 4


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    hungry = Hungry(network(), 7, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer(SETTINGS, hungry).run_epoch(lambda: None)
    assert hungry.seen == [24]


def test_a_loss_that_is_no_number_names_the_batch_and_moves_nothing() -> None:
    net = network()
    made = trainer(SETTINGS, net)
    made._step()
    with torch.no_grad():
        net[0].bias[0] = torch.nan
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sentence = (
        r"no number in epoch 1, batch 2: contrastive loss nan, .*nothing of it is kept. Try a lower learning_rate"
    )
    with pytest.raises(TrainingDivergedError, match=sentence) as caught:
        made._step()
    assert len(caught.value.rows) == 24
    assert set(caught.value.rows) <= set(range(40))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, before[name], equal_nan=True, rtol=0, atol=0)


def test_a_gradient_that_is_no_number_is_found_where_the_loss_is_fine() -> None:
    net = network()
    made = trainer(replace(SETTINGS, loss="triplet"), net)
    net[0].weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingDivergedError, match=r"batch 1: triplet loss 0\.\d+, .*gradient (nan|inf)"):
        made._step()


def test_a_clipped_gradient_has_the_length_asked_for() -> None:
    net, dec = network(), decoder()
    trainer(replace(SETTINGS, clip_norm=1e-3), net, dec)._step()
    gradients = [p.grad for module in (net, dec) for p in module.parameters()]
    assert torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients if g is not None])) == pytest.approx(
        1e-3, rel=1e-3
    )


def test_mixed_precision_computes_layers_in_bfloat16_and_keeps_weights_and_losses_in_float32() -> None:
    seen: list[torch.dtype] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.dtype)
            return x

    net = nn.Sequential(*list(network())[:-1], Watch(), Unit())
    plain, _ = weights_after(SETTINGS)
    mixed, made = weights_after(replace(SETTINGS, precision="bfloat16"), net)
    assert seen[0] == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in mixed.values())
    assert all(type(loss) is float for pair in made._losses for loss in pair)
    first = "0.weight"
    torch.testing.assert_close(mixed[first], plain[first], rtol=0, atol=0.05)
    assert not torch.equal(mixed[first], plain[first])


@pytest.mark.parametrize("loss", ["contrastive", "classification"])
def test_a_restored_trainer_goes_on_bit_for_bit_from_the_middle_of_an_epoch(loss: Any) -> None:
    settings = replace(SETTINGS, loss=loss)
    straight_net = network()
    straight = trainer(settings, straight_net)
    for _ in range(2):
        straight._losses.append(straight._step())
    kept = copy.deepcopy(straight.snapshot())
    first = straight.run_epoch(lambda: None)
    second = straight.run_epoch(lambda: None)

    other_net = network()
    with torch.no_grad():
        other_net[0].weight += 1
    resumed = trainer(replace(settings, seed=5), other_net)
    resumed.restore(kept)
    assert (resumed.steps, resumed.faces) == (2, 48)
    assert resumed.run_epoch(lambda: None) == first
    assert resumed.run_epoch(lambda: None) == second
    for name, tensor in straight_net.state_dict().items():
        assert torch.equal(tensor, other_net.state_dict()[name]), name


def test_settings_out_of_range_are_named() -> None:
    for wrong, match in (
        ({"clip_norm": 0.0}, "clip_norm: got 0.0, wanted a value above 0"),
        ({"patience": 0}, "patience: got 0"),
        ({"backbone_rate": 0.0}, r"backbone_rate: got 0.0, wanted a share in (0, 1]"),
        ({"precision": "float16"}, "precision: got 'float16', wanted float32 or bfloat16"),
        ({"loss": "arcface"}, "loss: got 'arcface', wanted contrastive, triplet or classification"),
        ({"micro_batches": 0}, "micro_batches: got 0, wanted at least 1"),
        (
            {"margin": 10.0},
            "margin: got 10.0, wanted a distance in (0, 2): unit vectors are never further apart than 2",
        ),
        ({"triplet_margin": 4.0}, "triplet margin: got 4.0"),
        ({"class_margin": 1.0}, "class margin: got 1.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(match)):
            replace(SETTINGS, **wrong)  # type: ignore[arg-type]
