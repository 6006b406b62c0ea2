import pytest
import torch

from models.augment import AugmentSettings, augment_crops

NOTHING = {"mirror": 0, "shift": 0, "scale": 0, "turn_degrees": 0, "brightness": 0, "contrast": 0, "colour": 0}
CROPS = torch.rand(6, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3


def augmented(seed: int = 1, crops: torch.Tensor = CROPS, **changes: float) -> torch.Tensor:
    settings = AugmentSettings(**{**NOTHING, **changes})
    return augment_crops(crops, settings, generator=torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing() -> None:
    torch.testing.assert_close(augmented(), CROPS, atol=1e-5, rtol=0)


def test_mirror_swaps_left_and_right_and_nothing_else() -> None:
    torch.testing.assert_close(augmented(mirror=1), CROPS.flip(3), atol=1e-5, rtol=0)


def test_half_of_many_crops_are_mirrored() -> None:
    left = torch.zeros(400, 1, 2, 2)
    left[..., 0] = 1
    assert 150 < augmented(crops=left.expand(-1, 3, -1, -1), mirror=0.5)[:, 0, 0, 0].sum() < 250


@pytest.mark.parametrize("name", ["shift", "scale", "turn_degrees", "brightness", "contrast", "colour"])
def test_each_change_differs_from_crop_to_crop(name: str) -> None:
    same = CROPS[:1].expand(6, -1, -1, -1)
    changed = augmented(crops=same, **{name: 15 if name == "turn_degrees" else 0.2})
    assert changed.shape == CROPS.shape
    distances = torch.cdist(changed.flatten(1), changed.flatten(1)) + torch.eye(6)
    assert distances.min() > 1e-3


def test_shift_moves_a_dot_by_no_more_than_asked_for() -> None:
    dots = torch.zeros(50, 3, 41, 41)
    dots[:, :, 20, 20] = 1
    moved = augmented(crops=dots, shift=0.1)[:, 0]
    weight = moved / moved.sum(dim=(1, 2), keepdim=True)
    column = (weight.sum(dim=1) * torch.arange(41)).sum(dim=1) - 20
    row = (weight.sum(dim=2) * torch.arange(41)).sum(dim=1) - 20
    for places in (row, column):
        assert places.abs().max() < 4.11
        assert places.min() < -3
        assert places.max() > 3


def test_brightness_moves_the_mean_and_contrast_keeps_it() -> None:
    before = CROPS.mean(dim=(1, 2, 3))
    assert (augmented(brightness=0.1).mean(dim=(1, 2, 3)) - before).abs().max() > 0.02
    torch.testing.assert_close(augmented(contrast=0.2).mean(dim=(1, 2, 3)), before)
    assert not torch.allclose(augmented(contrast=0.2).std(dim=(1, 2, 3)), CROPS.std(dim=(1, 2, 3)), atol=1e-3)


def test_pixels_stay_in_range_and_follow_the_generator() -> None:
    crops = torch.rand(20, 3, 16, 16)
    first = augmented(2, crops, brightness=0.9, contrast=0.9, colour=0.9, shift=0.3)
    assert first.min() >= 0
    assert first.max() <= 1
    torch.testing.assert_close(augmented(2, crops, brightness=0.9, contrast=0.9, colour=0.9, shift=0.3), first)
    assert not torch.allclose(augmented(3, crops, brightness=0.9, contrast=0.9, colour=0.9, shift=0.3), first)


@pytest.mark.parametrize(("name", "value"), [("mirror", 1.1), ("shift", -0.1), ("turn_degrees", 181)])
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{name}: got {value}, wanted a value in \[0, "):
        AugmentSettings(**{name: value})
