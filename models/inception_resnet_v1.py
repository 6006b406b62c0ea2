"""Inception-ResNet V1, the published network and narrower ones of the same family, blocks small to large.

N photos, C channels, H rows, W columns, D dimensions of an embedding. Names of layers are those of the published
checkpoints, so that their state dicts load strictly.
"""

import re
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.he_normal import initialise_he_normal

__all__ = ["InceptionResnetV1", "architecture_name", "width_of_architecture"]

ARCHITECTURE = "inception-resnet-v1"

_BFLOAT16_LAYERS = (
    "repeat_1.",
    "mixed_6a.branch0.",
    "mixed_6a.branch1.1.",
    "mixed_6a.branch1.2.",
    "repeat_2.",
    "mixed_7a.branch0.1.",
    "mixed_7a.branch1.1.",
    "mixed_7a.branch2.1.",
    "mixed_7a.branch2.2.",
    "repeat_3.",
)
"""Half of the time and a third of the error. What is left out costs more cosine than it gains time: the stem, whose error every
layer hands on, block8, which nothing after it averages out, and the 1 x 1 convolutions that open the reductions."""


def architecture_name(width: float) -> str:
    """The name in a card: `inception-resnet-v1` for width 1, `inception-resnet-v1-x0.5` for half the channels."""
    return ARCHITECTURE if width == 1 else f"{ARCHITECTURE}-x{width:g}"


def width_of_architecture(architecture: str) -> float | None:
    """The width that an architecture's name stands for, None if the name is of another family."""
    found = re.fullmatch(rf"{ARCHITECTURE}(?:-x(\d+(?:\.\d+)?))?", architecture)
    if found is None:
        return None
    width = float(found[1] or 1)
    return width if 0 < width <= 4 and architecture_name(width) == architecture else None


def _channels(published: int, width: float) -> int:
    return max(8, 8 * int(published * width / 8 + 0.5))


class _Conv(nn.Module):
    """Convolution, batch-norm, ReLU."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x_NCHW)))


class _Block35(nn.Module):
    """Residual block on the 35 x 35 grid (17 x 17 at 160 px): none, one and two 3 x 3 convolutions side by side."""

    def __init__(self, trunk: int, inner: int) -> None:
        super().__init__()
        self.branch0 = _Conv(trunk, inner, 1)
        self.branch1 = nn.Sequential(_Conv(trunk, inner, 1), _Conv(inner, inner, 3, padding=1))
        self.branch2 = nn.Sequential(
            _Conv(trunk, inner, 1), _Conv(inner, inner, 3, padding=1), _Conv(inner, inner, 3, padding=1)
        )
        self.conv2d = nn.Conv2d(3 * inner, trunk, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        branches = torch.cat((self.branch0(x_NCHW), self.branch1(x_NCHW), self.branch2(x_NCHW)), dim=1)
        return functional.relu(x_NCHW + 0.17 * self.conv2d(branches))


class _Block17(nn.Module):
    """Residual block on the 17 x 17 grid: a 7 x 7 convolution factored into a row and a column."""

    def __init__(self, trunk: int, inner: int) -> None:
        super().__init__()
        self.branch0 = _Conv(trunk, inner, 1)
        self.branch1 = nn.Sequential(
            _Conv(trunk, inner, 1),
            _Conv(inner, inner, (1, 7), padding=(0, 3)),
            _Conv(inner, inner, (7, 1), padding=(3, 0)),
        )
        self.conv2d = nn.Conv2d(2 * inner, trunk, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        branches = torch.cat((self.branch0(x_NCHW), self.branch1(x_NCHW)), dim=1)
        return functional.relu(x_NCHW + 0.10 * self.conv2d(branches))


class _Block8(nn.Module):
    """Residual block on the 8 x 8 grid: a factored 3 x 3 convolution; the last one has no ReLU and scale 1."""

    def __init__(self, trunk: int, inner: int, *, scale: float = 0.20, last: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.last = last
        self.branch0 = _Conv(trunk, inner, 1)
        self.branch1 = nn.Sequential(
            _Conv(trunk, inner, 1),
            _Conv(inner, inner, (1, 3), padding=(0, 1)),
            _Conv(inner, inner, (3, 1), padding=(1, 0)),
        )
        self.conv2d = nn.Conv2d(2 * inner, trunk, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        branches = torch.cat((self.branch0(x_NCHW), self.branch1(x_NCHW)), dim=1)
        y_NCHW = x_NCHW + self.scale * self.conv2d(branches)
        return y_NCHW if self.last else functional.relu(y_NCHW)


class _ReduceTo17(nn.Module):
    """Halve the grid, 35 x 35 to 17 x 17."""

    def __init__(self, trunk: int, single: int, inner: int, double: int) -> None:
        super().__init__()
        self.branch0 = _Conv(trunk, single, 3, stride=2)
        self.branch1 = nn.Sequential(
            _Conv(trunk, inner, 1), _Conv(inner, inner, 3, padding=1), _Conv(inner, double, 3, stride=2)
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled = functional.max_pool2d(x_NCHW, 3, stride=2)
        return torch.cat((self.branch0(x_NCHW), self.branch1(x_NCHW), pooled), dim=1)


class _ReduceTo8(nn.Module):
    """Halve the grid, 17 x 17 to 8 x 8."""

    def __init__(self, trunk: int, inner: int, wide: int) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(_Conv(trunk, inner, 1), _Conv(inner, wide, 3, stride=2))
        self.branch1 = nn.Sequential(_Conv(trunk, inner, 1), _Conv(inner, inner, 3, stride=2))
        self.branch2 = nn.Sequential(
            _Conv(trunk, inner, 1), _Conv(inner, inner, 3, padding=1), _Conv(inner, inner, 3, stride=2)
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pooled = functional.max_pool2d(x_NCHW, 3, stride=2)
        return torch.cat((self.branch0(x_NCHW), self.branch1(x_NCHW), self.branch2(x_NCHW), pooled), dim=1)


class InceptionResnetV1(nn.Module):
    """Faces to unit vectors, by Inception-ResNet V1.

    Args:
        width: factor of every layer's number of channels, rounded to multiples of 8; 1 is exactly the published
            network, 0.25 or 0.5 train on a processor.
        dimension: length of an embedding; 512 in the published network.

    Raises:
        ValueError: width or dimension out of range; the message names the argument and its value.

    References:
        Szegedy, Ioffe, Vanhoucke, Alemi. Inception-v4, Inception-ResNet and the Impact of Residual Connections on
        Learning. AAAI 2017. arXiv:1602.07261. Layers, scales and names as in facenet-pytorch's checkpoints; without
        their dropout and their classifier, which an embedding does not pass through.
    """

    smallest_input_px: ClassVar[int] = 75
    published_classifier: ClassVar[str] = "logits."

    def __init__(self, width: float = 1.0, dimension: int = 512) -> None:
        super().__init__()
        if not 0 < width <= 4:
            raise ValueError(f"width: got {width}, wanted a factor above 0 and at most 4")
        if dimension < 1:
            raise ValueError(f"dimension: got {dimension}, wanted at least 1")
        self.width = width
        c32, c64, c80, c128, c192, c256, c384 = (_channels(n, width) for n in (32, 64, 80, 128, 192, 256, 384))
        trunk17 = c384 + c256 + c256
        trunk8 = c384 + c256 + c256 + trunk17
        self.conv2d_1a = _Conv(3, c32, 3, stride=2)
        self.conv2d_2a = _Conv(c32, c32, 3)
        self.conv2d_2b = _Conv(c32, c64, 3, padding=1)
        self.conv2d_3b = _Conv(c64, c80, 1)
        self.conv2d_4a = _Conv(c80, c192, 3)
        self.conv2d_4b = _Conv(c192, c256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_Block35(c256, c32) for _ in range(5)))
        self.mixed_6a = _ReduceTo17(c256, c384, c192, c256)
        self.repeat_2 = nn.Sequential(*(_Block17(trunk17, c128) for _ in range(10)))
        self.mixed_7a = _ReduceTo8(trunk17, c256, c384)
        self.repeat_3 = nn.Sequential(*(_Block8(trunk8, c192) for _ in range(5)))
        self.block8 = _Block8(trunk8, c192, scale=1.0, last=True)
        self.last_linear = nn.Linear(trunk8, dimension, bias=False)
        self.last_bn = nn.BatchNorm1d(dimension, eps=0.001)

    @property
    def bfloat16_layers(self) -> tuple[str, ...]:
        """How the names begin of the layers whose convolutions may be bfloat16 on a processor: cosines stay over 0.9999.

        A narrow network has none: its embeddings are as sensitive, and it is fast.
        """
        return _BFLOAT16_LAYERS if self.width == 1 else ()

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Embed preprocessed faces.

        Args:
            inputs_NCHW: float32, (N, 3, H, W), as the card's input says; H and W at least 75.

        Returns:
            float32, (N, D), rows of length 1.
        """
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(inputs_NCHW)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = x.float().mean(dim=(2, 3))  # float32 from here on, whatever the convolutions were computed in
        return functional.normalize(self.last_bn(self.last_linear(x)), dim=1)

    def initialise(self, seed: int) -> None:
        """Draw every weight anew from `seed`; see `initialise_he_normal`."""
        initialise_he_normal(self, seed)
