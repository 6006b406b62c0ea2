"""The cascade's nets by torch: on a GPU, and as the readable twin of the graphs in `openvino_nets`.

Photos go to the device once. Levels, crops and nets are computed there for the whole batch; what comes back are the few
windows that pass, once a sheet, and the candidates' outputs.

Shapes: N images, C channels, H rows, W columns. Inputs are (pixel - 127.5) / 128, RGB. The checkpoints were converted from
Caffe, whose blobs are (N, C, W, H): the dense layers read columns before rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.mtcnn.area import Span
from models.mtcnn.cells import Cells, softmax_of_two
from models.mtcnn.sheets import SHEET_PX, Sheet
from models.mtcnn.weights import NetName, load_weights

__all__ = ["ONet", "PNet", "RNet", "TorchNets"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_RNET_SIDE_PX, _ONET_SIDE_PX = 24, 48
_CHUNK_CROPS = 4096
_MARGIN = 1e-3


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

    def forward(self, images_NCHW: Tensor, outside_1HW: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits and a box correction for every window.

        Args:
            images_NCHW: float, (N, 3, H, W), H and W at least 12.
            outside_1HW: bool, (N or 1, H - 2, W - 2), what the pooling must not see.

        Returns:
            logits_N2HW and shift_N4HW, the corrections of x1, y1, x2, y2 in sides of the window.
        """
        x = self.prelu1(self.conv1(images_NCHW))
        if outside_1HW is not None:
            x = x.masked_fill(outside_1HW[:, None], -torch.inf)
        x = self.pool1(x)
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_1(x), self.conv4_2(x)


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
        """Logits and a box correction for every candidate.

        Args:
            crops_NCHW: float, (N, 3, 24, 24).

        Returns:
            logits_N2 and shift_N4, in sides of the candidate's box.
        """
        x = self.pool1(self.prelu1(self.conv1(crops_NCHW)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_columns_first(x)))
        return self.dense5_1(x), self.dense5_2(x)


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
        """Logits, a box correction and landmarks for every candidate.

        Args:
            crops_NCHW: float, (N, 3, 48, 48).

        Returns:
            logits_N2; shift_N4, in sides of the candidate's box; points_N10, the five x, then the five y, in sides of the box from its left top corner.
        """
        x = self.pool1(self.prelu1(self.conv1(crops_NCHW)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_columns_first(x)))
        return self.dense6_1(x), self.dense6_2(x), self.dense6_3(x)


def _columns_first(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(0, 3, 2, 1).flatten(1)


@dataclass(frozen=True, eq=False)
class _Tables:
    """Summed-area tables on the device, one after another: int32 that wrap around, (sum of (H + 1) * (W + 1), 3)."""

    sums: Tensor
    starts: IntArray
    strides: IntArray


class TorchNets:
    """PNet, RNet and ONet as torch modules, float32; on a GPU without its shortened multiplications (TF32).

    Args:
        device: "cuda", "cuda:1", or "cpu" to compare with.

    Raises:
        WeightsError: the weights are missing or are not the published ones.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        names: tuple[NetName, ...] = ("pnet", "rnet", "onet")
        for name in names:
            net: nn.Module = getattr(self, name)
            state = {key: torch.from_numpy(array) for key, array in load_weights(name).items()}
            net.load_state_dict(state, strict=True)
            net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def load(self, photos: Sequence[npt.NDArray[np.uint8]]) -> _Tables:
        """The photos' summed-area tables, made on the device."""
        sizes_P2 = np.array([photo.shape[:2] for photo in photos], dtype=np.int64) + 1
        ends_P = np.cumsum(sizes_P2.prod(axis=1))
        starts_P = ends_P - sizes_P2.prod(axis=1)
        sums = torch.zeros((int(ends_P[-1]), 3), dtype=torch.int32, device=self.device)
        for photo_HWC, start, end, (rows, columns) in zip(photos, starts_P, ends_P, sizes_P2.tolist(), strict=True):
            table_HWC = sums[start:end].view(rows, columns, 3)
            pixels_HWC = torch.from_numpy(np.array(photo_HWC)).to(self.device, non_blocking=True)
            table_HWC[1:, 1:] = pixels_HWC.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
        return _Tables(sums=sums, starts=starts_P, strides=sizes_P2[:, 1])

    @torch.inference_mode()
    def propose(self, loaded: _Tables, sheet: Sheet, spans: Sequence[tuple[Span, Span]], *, threshold: float) -> Cells:
        """PNet over one sheet; see `CascadeNets`."""
        pixels_HWC = self._pixels(loaded, sheet, spans)
        outside_1HW = self._there(sheet.mask()[None] < 0)
        logits_12HW, shift_14HW = self._exactly(self.pnet, pixels_HWC.permute(2, 0, 1)[None], outside_1HW)
        owner_HW = self._there(sheet.owners())
        lowest = (
            math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.inf * (threshold - 0.5)
        ) - _MARGIN
        passing_HW = (logits_12HW[0, 1] - logits_12HW[0, 0] >= lowest) & (owner_HW >= 0)
        row_M, column_M = passing_HW.nonzero(as_tuple=True)
        both_M6 = torch.cat([logits_12HW[0], shift_14HW[0]])[:, row_M, column_M].T
        where_M3 = torch.stack([owner_HW[row_M, column_M].long(), row_M, column_M], dim=1).cpu().numpy()
        found_M6 = both_M6.cpu().numpy()
        corners_K2 = np.array([(row // 2, column // 2) for _, row, column in sheet.places], dtype=np.int64)
        place_M = where_M3[:, 0]
        return Cells(
            place=place_M,
            row=where_M3[:, 1] - corners_K2[place_M, 0],
            column=where_M3[:, 2] - corners_K2[place_M, 1],
            score=softmax_of_two(found_M6[:, :2]),
            shift=found_M6[:, 2:],
        )

    def refine(self, loaded: _Tables, photos_N: IntArray, windows_N4: IntArray) -> tuple[FloatArray, FloatArray]:
        """RNet over windows; see `CascadeNets`."""
        logits_N2, shift_N4 = self._over_windows(self.rnet, loaded, photos_N, windows_N4, side_px=_RNET_SIDE_PX)
        return softmax_of_two(logits_N2), shift_N4

    def decide(
        self, loaded: _Tables, photos_N: IntArray, windows_N4: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """ONet over windows; see `CascadeNets`."""
        outputs = self._over_windows(self.onet, loaded, photos_N, windows_N4, side_px=_ONET_SIDE_PX)
        logits_N2, shift_N4, points_N10 = outputs
        return softmax_of_two(logits_N2), shift_N4, points_N10

    @torch.inference_mode()
    def _over_windows(
        self, net: nn.Module, loaded: _Tables, photos_N: IntArray, windows_N4: IntArray, *, side_px: int
    ) -> list[FloatArray]:
        chunks = []
        for start in range(0, len(windows_N4), _CHUNK_CROPS):
            part = slice(start, start + _CHUNK_CROPS)
            crops_NHWC = self._crops(loaded, photos_N[part], windows_N4[part], side_px)
            chunks.append(self._exactly(net, crops_NHWC.permute(0, 3, 1, 2)))
        return [torch.cat(column).cpu().numpy() for column in zip(*chunks, strict=True)]

    def _pixels(self, loaded: _Tables, sheet: Sheet, spans: Sequence[tuple[Span, Span]]) -> Tensor:
        """A whole sheet at once, (S, S, 3), each tile as `area.cut_tile` gives it; what no tile covers is no picture."""
        tiles = [tile for tile, _, _ in sheet.places]
        first_K2 = np.array([(row, column) for _, row, column in sheet.places], dtype=np.int64)
        sides_K2 = np.array([(tile.rows, tile.columns) for tile in tiles], dtype=np.int64)
        table_R = np.repeat(
            [tile.photo for tile in tiles], sides_K2[:, 0]
        )  # a row of the sheet's tiles after the other
        edges = [
            np.concatenate([getattr(span[side], edge) for span in spans])
            for side in (0, 1)
            for edge in ("first", "end")
        ]
        tops, bottoms = (loaded.starts[table_R] + edge * loaded.strides[table_R] for edge in edges[:2])
        before_K2 = np.cumsum(sides_K2, axis=0) - sides_K2 - first_K2
        owner_HW = self._there(sheet.pixel_owners()).clamp(min=0)
        row_HW, column_HW = (
            (self._there(before_K2[:, side])[owner_HW] + torch.arange(SHEET_PX, device=self.device).view(shape)).clamp(
                0, len(edges[2 * side]) - 1
            )
            for side, shape in ((0, (-1, 1)), (1, (1, -1)))
        )
        top, bottom = (self._there(edge)[row_HW] for edge in (tops, bottoms))
        left, right = (self._there(edge)[column_HW] for edge in edges[2:])
        heights = self._there(edges[1] - edges[0])[row_HW]
        last = len(loaded.sums) - 1
        corners = (bottom + right, top + right, bottom + left, top + left)
        return _normalised(_sums(loaded, *(corner.clamp(max=last) for corner in corners)), heights * (right - left))

    def _crops(self, loaded: _Tables, photos_N: IntArray, windows_N4: IntArray, side_px: int) -> Tensor:
        """Windows as crops, (N, side_px, side_px, 3), as `area.cut_crops` gives them."""
        window_N4 = self._there(windows_N4)
        pixel = torch.arange(side_px, device=self.device)
        size_N21 = (window_N4[:, 2:] - window_N4[:, :2])[..., None]
        first_N2S = window_N4[:, :2, None] + pixel * size_N21 // side_px
        end_N2S = window_N4[:, :2, None] - (-(pixel + 1) * size_N21).div(side_px, rounding_mode="floor")
        start_N1, stride_N1 = (self._there(of[photos_N])[:, None] for of in (loaded.starts, loaded.strides))
        top, bottom = ((start_N1 + edge[:, 1] * stride_N1)[:, :, None] for edge in (first_N2S, end_N2S))
        left, right = first_N2S[:, 0, None, :], end_N2S[:, 0, None, :]
        size_N2S = end_N2S - first_N2S
        sums_NSSC = _sums(loaded, bottom + right, top + right, bottom + left, top + left)
        return _normalised(sums_NSSC, size_N2S[:, 1, :, None] * size_N2S[:, 0, None])

    def _exactly(self, net: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs: tuple[Tensor, ...] = net(*inputs)
        return outputs

    def _there(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)


def _sums(loaded: _Tables, low_right: Tensor, high_right: Tensor, low_left: Tensor, high_left: Tensor) -> Tensor:
    """Sums of areas, given where their corners stand in the tables."""
    sums = loaded.sums
    return sums[low_right] - sums[high_right] - sums[low_left] + sums[high_left]


def _normalised(sums: Tensor, areas: Tensor) -> Tensor:
    return sums.float() * (0.0078125 / areas.float())[..., None] - 127.5 * 0.0078125
