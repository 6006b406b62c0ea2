"""Random changes to crops that keep the person: for training only.

N crops, C channels, H rows, W columns.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["AugmentSettings", "augment_crops"]


@dataclass(frozen=True)
class AugmentSettings:
    """The widest changes; each crop draws its own, evenly, up to them.

    Args:
        mirror: share of the crops that are mirrored, in [0, 1].
        shift: as a share of the crop's side, to either side.
        scale: as a share of the crop's size, up and down.
        turn_degrees: to either side.
        brightness: added to pixels in [0, 1], up and down.
        contrast: as a share of the distance from the crop's mean, up and down.
        colour: as a share of each channel's value, up and down.

    Raises:
        ValueError: a value out of range; the message names it.
    """

    mirror: float = 0.5
    shift: float = 0.06
    scale: float = 0.1
    turn_degrees: float = 8.0
    brightness: float = 0.1
    contrast: float = 0.25
    colour: float = 0.1

    def __post_init__(self) -> None:
        """Check every value."""
        for field in fields(self):
            value, most = getattr(self, field.name), 180.0 if field.name == "turn_degrees" else 1.0
            if not 0 <= value <= most:
                raise ValueError(f"augment.{field.name}: got {value}, wanted a value in [0, {most:g}]")


def augment_crops(crops_NCHW: Tensor, settings: AugmentSettings, *, generator: torch.Generator) -> Tensor:
    """The crops mirrored, moved, turned, scaled and re-lit, each at random.

    Args:
        crops_NCHW: float32, (N, 3, H, W), in [0, 1].
        settings: how much of each.
        generator: on the processor, wherever the crops are, so that devices draw alike.

    Returns:
        Same dtype, shape, range and device; pixels from outside a crop repeat its border.
    """
    grid = functional.affine_grid(
        _placements(len(crops_NCHW), settings, generator).to(crops_NCHW.device),
        list(crops_NCHW.shape),
        align_corners=False,
    )
    moved = functional.grid_sample(crops_NCHW, grid, padding_mode="border", align_corners=False)
    return _relight(moved, settings, generator)


def _placements(count: int, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Where each output pixel is taken from, (N, 2, 3), in coordinates from -1 to 1."""
    angles = torch.deg2rad(_spread(count, 1, settings.turn_degrees, generator))[:, 0]
    sizes = 1 + _spread(count, 1, settings.scale, generator)[:, 0]
    flips = 1 - 2 * (torch.rand(count, generator=generator) < settings.mirror).float()
    shifts = 2 * _spread(count, 2, settings.shift, generator)
    cosines, sines = sizes * angles.cos(), sizes * angles.sin()
    return torch.stack(
        [
            torch.stack([flips * cosines, -sines, shifts[:, 0]], dim=1),
            torch.stack([flips * sines, cosines, shifts[:, 1]], dim=1),
        ],
        dim=1,
    )


def _relight(crops_NCHW: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    count, device = len(crops_NCHW), crops_NCHW.device
    brightness = _spread(count, 1, settings.brightness, generator)
    contrast = 1 + _spread(count, 1, settings.contrast, generator)
    colour = 1 + _spread(count, 3, settings.colour, generator)
    means = crops_NCHW.mean(dim=(1, 2, 3), keepdim=True)
    factor = (contrast * colour)[:, :, None, None].to(device)
    added = brightness[:, :, None, None].to(device)
    return ((crops_NCHW - means) * factor + means * colour[:, :, None, None].to(device) + added).clamp(0, 1)


def _spread(count: int, columns: int, most: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, columns, generator=generator) - 1) * most
