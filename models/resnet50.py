"""ResNet-50, blocks small to large.

N photos, C channels, H rows, W columns, D dimensions of an embedding. Names of layers are those of torchvision's
checkpoints, so that their state dicts load strictly once their classifier `fc.*` is dropped.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.he_normal import initialise_he_normal

__all__ = ["ARCHITECTURE", "POOLED_DIMENSION", "ResNet50"]

ARCHITECTURE = "resnet50"
POOLED_DIMENSION = 2048
_WIDER = 4


class _Bottleneck(nn.Module):
    """Residual block: 1 x 1 down to `inner` channels, 3 x 3, 1 x 1 up to four times as many."""

    def __init__(self, before: int, inner: int, *, stride: int = 1) -> None:
        super().__init__()
        after = _WIDER * inner
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = functional.relu(self.bn1(self.conv1(x_NCHW)))
        y_NCHW = functional.relu(self.bn2(self.conv2(y_NCHW)))
        y_NCHW = self.bn3(self.conv3(y_NCHW))
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        return functional.relu(y_NCHW + shortcut)


def _stage(before: int, inner: int, blocks: int, *, stride: int) -> nn.Sequential:
    """Blocks on one grid; the first one halves it when `stride` is 2."""
    first = _Bottleneck(before, inner, stride=stride)
    return nn.Sequential(first, *(_Bottleneck(_WIDER * inner, inner) for _ in range(blocks - 1)))


class ResNet50(nn.Module):
    """Faces to unit vectors, by ResNet-50.

    Args:
        dimension: length of an embedding. At 2048 it is the pooled features themselves, as the published network has them;
            otherwise a linear layer and a batch-norm, named as in our Inception-ResNet, follow the pooling.

    Raises:
        ValueError: dimension out of range; the message names it.

    References:
        He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385. As in torchvision's
        checkpoints a block halves the grid in its 3 x 3 convolution, where the paper does it in the first 1 x 1; without
        their classifier.
    """

    smallest_input_px: ClassVar[int] = 32
    published_classifier: ClassVar[str] = "fc."
    bfloat16_layers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, dimension: int = POOLED_DIMENSION) -> None:
        super().__init__()
        if dimension < 1:
            raise ValueError(f"dimension: got {dimension}, wanted at least 1")
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.has_head = dimension != POOLED_DIMENSION
        if self.has_head:
            self.last_linear = nn.Linear(POOLED_DIMENSION, dimension, bias=False)
            self.last_bn = nn.BatchNorm1d(dimension, eps=0.001)

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        """Embed preprocessed faces.

        Args:
            inputs_NCHW: float32, (N, 3, H, W), as the card's input says; H and W at least 32.

        Returns:
            float32, (N, D), rows of length 1.
        """
        x = functional.relu(self.bn1(self.conv1(inputs_NCHW)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = x.float().mean(dim=(2, 3))  # float32 from here on, whatever the convolutions were computed in
        if self.has_head:
            x = self.last_bn(self.last_linear(x))
        return functional.normalize(x, dim=1)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw every weight anew from `seed`; see `initialise_he_normal`.

        Each block starts as its shortcut: its last batch-norm gives zero, or sixteen blocks would make signals hundreds of
        times larger (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        """
        initialise_he_normal(self, seed)
        for module in self.modules():
            if isinstance(module, _Bottleneck):
                module.bn3.weight.zero_()
