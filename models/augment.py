"""Random changes to crops that keep the person: for training only.

N crops, C channels, H rows, W columns.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["AugmentSettings", "Changes", "apply_changes", "augment_crops", "draw_changes"]


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


class Changes(NamedTuple):
    """What is done to each of N crops: placements (N, 2, 3), brightness (N, 1), contrast (N, 1), colour (N, 3), float32."""

    placement: Tensor
    brightness: Tensor
    contrast: Tensor
    colour: Tensor

    def part(self, which: slice) -> "Changes":
        """The changes of some of the crops."""
        return Changes(*(column[which] for column in self))


def draw_changes(count: int, settings: AugmentSettings, *, generator: torch.Generator) -> Changes:
    """Draw what is to be done to `count` crops, on the processor, so that all devices and all ways to cut a batch draw alike."""
    placement = _placements(count, settings, generator)
    brightness = _spread(count, 1, settings.brightness, generator)
    contrast = 1 + _spread(count, 1, settings.contrast, generator)
    colour = 1 + _spread(count, 3, settings.colour, generator)
    return Changes(placement, brightness, contrast, colour)


def apply_changes(crops_NCHW: Tensor, changes: Changes) -> Tensor:
    """The crops mirrored, moved, turned, scaled and re-lit, each by its own changes.

    Args:
        crops_NCHW: float32, (N, 3, H, W), in [0, 1].
        changes: of N crops.

    Returns:
        Same dtype, shape, range and device; pixels from outside a crop repeat its border.
    """
    device = crops_NCHW.device
    grid = functional.affine_grid(changes.placement.to(device), list(crops_NCHW.shape), align_corners=False)
    moved = functional.grid_sample(crops_NCHW, grid, padding_mode="border", align_corners=False)
    means = moved.mean(dim=(1, 2, 3), keepdim=True)
    colour = changes.colour[:, :, None, None].to(device)
    factor = (changes.contrast * changes.colour)[:, :, None, None].to(device)
    added = changes.brightness[:, :, None, None].to(device)
    return ((moved - means) * factor + means * colour + added).clamp(0, 1)


def augment_crops(crops_NCHW: Tensor, settings: AugmentSettings, *, generator: torch.Generator) -> Tensor:
    """The crops changed at random: `apply_changes` with what `draw_changes` draws."""
    return apply_changes(crops_NCHW, draw_changes(len(crops_NCHW), settings, generator=generator))


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


def _spread(count: int, columns: int, most: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, columns, generator=generator) - 1) * most
