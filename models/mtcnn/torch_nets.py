"""The cascade's nets by torch: on a GPU, and as the readable twin of the graphs in `openvino_nets`.

Photos go to the device once. Levels, crops, nets and the suppression of boxes are computed there for the whole batch; what
comes back are the few windows that pass, the candidates' outputs, and who survives.

Shapes: N images, C channels, H rows, W columns. Inputs are (pixel - 127.5) / 128, RGB. The checkpoints were converted from
Caffe, whose blobs are (N, C, W, H): the dense layers read columns before rows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.full_precision import full_precision
from models.mtcnn.layout import Layout, Places
from models.mtcnn.nets import Cells, difference_at, softmax_of_two
from models.mtcnn.nms import Overlap
from models.mtcnn.sheets import SHEET_CELLS, SHEET_PX
from models.mtcnn.torch_area import DeviceTables, cut_crops_there, cut_sheets_there, paint_places, send, tables_on
from models.mtcnn.torch_nms import survivors_on
from models.mtcnn.weights import NetName, load_weights

__all__ = ["ONet", "PNet", "RNet", "TorchNets"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_RNET_SIDE_PX, _ONET_SIDE_PX = 24, 48
_CHUNK_CROPS = 4096
_CHUNK_SHEETS = 16  # some 2 GB on the device
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
            net.load_state_dict(load_weights(name), strict=True)
            net.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def load(self, photos: Sequence[npt.NDArray[np.uint8]]) -> DeviceTables:
        """The photos' summed-area tables, made on the device."""
        return tables_on(self.device, photos)

    @torch.inference_mode()
    def propose(self, loaded: DeviceTables, layout: Layout, *, threshold: float) -> Cells:
        """PNet over many sheets at a time; see `CascadeNets`."""
        every = send(self.device, np.stack(layout.places))
        found = []
        for sheet in range(0, len(layout.sheets), _CHUNK_SHEETS):
            sheets = min(_CHUNK_SHEETS, len(layout.sheets) - sheet)
            first, end = np.searchsorted(layout.places.sheet, [sheet, sheet + sheets]).tolist()
            places = Places(*every[:, first:end])
            places = places._replace(sheet=places.sheet - sheet)
            where_M3, output_M6 = self._propose_on(sheets, loaded, places, lowest=difference_at(threshold) - _MARGIN)
            where_M3[:, 0] += first
            found.append((where_M3, output_M6))
        passing_M3, passing_M6 = (torch.cat(column).cpu().numpy() for column in zip(*found, strict=True))
        place_M = passing_M3[:, 0]
        return Cells(
            place=place_M,
            row=passing_M3[:, 1] - layout.places.row[place_M] // 2,
            column=passing_M3[:, 2] - layout.places.column[place_M] // 2,
            score=softmax_of_two(passing_M6[:, :2]),
            shift=passing_M6[:, 2:],
        )

    def survivors(self, boxes_N4: FloatArray, groups_N: IntArray, overlap: Overlap) -> npt.NDArray[np.bool_]:
        """On the device; see `CascadeNets`."""
        return survivors_on(self.device, boxes_N4, groups_N, overlap)

    def refine(self, loaded: DeviceTables, photos_N: IntArray, windows_N4: IntArray) -> tuple[FloatArray, FloatArray]:
        """RNet over windows; see `CascadeNets`."""
        logits_N2, shift_N4 = self._over_windows(self.rnet, loaded, photos_N, windows_N4, side_px=_RNET_SIDE_PX)
        return softmax_of_two(logits_N2), shift_N4

    def decide(
        self, loaded: DeviceTables, photos_N: IntArray, windows_N4: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """ONet over windows; see `CascadeNets`."""
        outputs = self._over_windows(self.onet, loaded, photos_N, windows_N4, side_px=_ONET_SIDE_PX)
        logits_N2, shift_N4, points_N10 = outputs
        return softmax_of_two(logits_N2), shift_N4, points_N10

    @torch.inference_mode()
    def _over_windows(
        self, net: nn.Module, loaded: DeviceTables, photos_N: IntArray, windows_N4: IntArray, *, side_px: int
    ) -> list[FloatArray]:
        chunks = []
        for start in range(0, len(windows_N4), _CHUNK_CROPS):
            part = slice(start, start + _CHUNK_CROPS)
            photos, windows = send(self.device, photos_N[part]), send(self.device, windows_N4[part])
            crops_NHWC = cut_crops_there(loaded, photos, windows, side_px=side_px)
            chunks.append(_exactly(net, crops_NHWC.permute(0, 3, 1, 2)))
        return [torch.cat(column).cpu().numpy() for column in zip(*chunks, strict=True)]

    def _propose_on(
        self, sheets: int, loaded: DeviceTables, places: Places[Tensor], *, lowest: float
    ) -> tuple[Tensor, Tensor]:
        """Where PNet's windows pass, int64 (M, 3): place, row and column on its sheet; and its six outputs there, (M, 6)."""
        pixels_NHWC = cut_sheets_there(loaded, places, _owners(places, sheets))
        logits_N2HW, shift_N4HW = _exactly(self.pnet, pixels_NHWC.permute(0, 3, 1, 2), _outside(places, sheets))
        owner_NHW = _cell_owners(places, sheets)
        passing_NHW = (logits_N2HW[:, 1] - logits_N2HW[:, 0] >= lowest) & (owner_NHW >= 0)
        sheet_M, row_M, column_M = passing_NHW.nonzero(as_tuple=True)
        output_M6 = torch.cat([logits_N2HW, shift_N4HW], dim=1)[sheet_M, :, row_M, column_M]
        return torch.stack([owner_NHW[sheet_M, row_M, column_M].long(), row_M, column_M], dim=1), output_M6


def _owners(places: Places[Tensor], sheets: int) -> Tensor:
    """Which place each pixel belongs to, -1 for none: (sheets, S, S)."""
    sheet, row, column, rows, columns = places[:5]
    return paint_places(sheet, row, column, rows, columns, sheets=sheets, side=SHEET_PX)


def _outside(places: Places[Tensor], sheets: int) -> Tensor:
    """Where the first convolution sees more than one tile: `Sheet.mask`, bool (sheets, S - 2, S - 2)."""
    sheet, row, column, rows, columns = places[:5]
    return paint_places(sheet, row, column, rows - 2, columns - 2, sheets=sheets, side=SHEET_PX - 2) < 0


def _cell_owners(places: Places[Tensor], sheets: int) -> Tensor:
    """Which place each cell belongs to, -1 for none: `Sheet.owners`, (sheets, SHEET_CELLS, SHEET_CELLS)."""
    sheet, row, column, _, _, rows, columns = places[:7]
    return paint_places(sheet, row // 2, column // 2, rows, columns, sheets=sheets, side=SHEET_CELLS)


def _exactly(net: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    with full_precision():
        outputs: tuple[Tensor, ...] = net(*inputs)
    return outputs
