"""PNet, RNet and ONet: arithmetic only.

Shapes: N images, C channels, H rows, W columns. Inputs are (pixel - 127.5) / 128, RGB.
The checkpoints were converted from Caffe, whose blobs are (N, C, W, H): the dense layers read columns before rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.mtcnn.weights import NetName, load_weights

__all__ = ["CascadeNets", "ONet", "PNet", "RNet", "load_cascade_nets"]


class PNet(nn.Module):
    """Proposes faces: a fully convolutional net that looks at every 12 x 12 window, two pixels apart.

    References:
        Zhang, Zhang, Li, Qiao. Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks.
        2016. arXiv:1604.02878, figure 2. Pooling rounds up, as Caffe's does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, kernel_size=3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, kernel_size=3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, kernel_size=3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, kernel_size=1)
        self.conv4_2 = nn.Conv2d(32, 4, kernel_size=1)

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """A score and a box correction for every window.

        Args:
            images_NCHW: float32, (N, 3, H, W), H and W at least 12.

        Returns:
            score_NHW, float32 in [0, 1], and shift_N4HW, float32, the corrections of x1, y1, x2, y2 in sides of the
            window.
        """
        x = self.pool1(self.prelu1(self.conv1(images_NCHW)))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_1(x).softmax(dim=1)[:, 1], self.conv4_2(x)


class RNet(nn.Module):
    """Refines proposals: keeps or rejects a 24 x 24 candidate and corrects its box.

    References:
        As PNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, kernel_size=3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, kernel_size=3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, kernel_size=2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, crops_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """A score and a box correction for every candidate.

        Args:
            crops_NCHW: float32, (N, 3, 24, 24).

        Returns:
            score_N, float32 in [0, 1], and shift_N4, float32, in sides of the candidate's box.
        """
        x = self.pool1(self.prelu1(self.conv1(crops_NCHW)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_columns_first(x)))
        return self.dense5_1(x).softmax(dim=1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Decides: score, box correction and five landmarks of a 48 x 48 candidate.

    References:
        As PNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, kernel_size=3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, kernel_size=3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, kernel_size=2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, crops_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A score, a box correction and landmarks for every candidate.

        Args:
            crops_NCHW: float32, (N, 3, 48, 48).

        Returns:
            score_N, float32 in [0, 1]; shift_N4, float32, in sides of the candidate's box; points_N10, float32, the
            five x, then the five y, in sides of the box from its left top corner.
        """
        x = self.pool1(self.prelu1(self.conv1(crops_NCHW)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_columns_first(x)))
        return self.dense6_1(x).softmax(dim=1)[:, 1], self.dense6_2(x), self.dense6_3(x)


def _columns_first(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(0, 3, 2, 1).flatten(1)


@dataclass(frozen=True, eq=False)
class CascadeNets:
    """The cascade's three nets, in inference mode, on one device."""

    pnet: PNet
    rnet: RNet
    onet: ONet

    @property
    def device(self) -> torch.device:
        """Where the nets compute."""
        return self.pnet.conv1.weight.device


def load_cascade_nets(device: str | torch.device = "cpu") -> CascadeNets:
    """The three nets with facenet-pytorch's weights.

    Args:
        device: where they shall compute, "cpu" or "cuda".

    Raises:
        WeightsError: the weights are missing or are not the published ones.
    """
    nets = CascadeNets(pnet=PNet(), rnet=RNet(), onet=ONet())
    names: tuple[NetName, ...] = ("pnet", "rnet", "onet")
    for name in names:
        net: nn.Module = getattr(nets, name)
        net.load_state_dict(load_weights(name), strict=True)
        net.eval().requires_grad_(False).to(device)
    return nets
