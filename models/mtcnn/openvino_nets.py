"""The cascade's nets on the processor, by OpenVINO: of the runtimes measured the fastest by more than two times.

The graphs are written down here, once more than in `torch_nets`, since OpenVINO reads no torch modules; a test holds the
two together. Pixels are (N, H, W, 4) with a channel of zeros, as `area` cuts them.
"""

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.mtcnn import nms
from models.mtcnn.area import AreaTables, area_tables, cut_crops, cut_tile
from models.mtcnn.layout import Layout
from models.mtcnn.nets import Cells, difference_at, softmax_of_two
from models.mtcnn.sheets import SHEET_PX, Sheet
from models.mtcnn.weights import load_weights

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import would report to its makers
import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = ["OpenVinoNets"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Weights = dict[str, FloatArray]

_RNET_SIDE_PX, _RNET_CROPS = 24, 32
_ONET_SIDE_PX, _ONET_CROPS = 48, 16
_NCHW, _NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_ONE_CORE = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
_MARGIN = 1e-3


class OpenVinoNets:
    """PNet, RNet and ONet compiled for this processor, float32, one thread; shapes are fixed, batches are filled up.

    Raises:
        WeightsError: the weights are missing or are not the published ones.
    """

    device = "cpu"

    def __init__(self) -> None:
        core = openvino.Core()
        self._nets = [core.compile_model(graph, "CPU", _ONE_CORE) for graph in (_pnet(), _rnet(), _onet())]
        self._requests = threading.local()

    def load(self, photos: Sequence[npt.NDArray[np.uint8]]) -> AreaTables:
        """The photos' summed-area tables."""
        return area_tables(photos)

    def propose(self, loaded: AreaTables, layout: Layout, *, threshold: float) -> Cells:
        """PNet over one sheet after the other; see `CascadeNets`."""
        found, place = [], 0
        for sheet in layout.sheets:
            found.append(self._propose_on(sheet, loaded, layout, place, threshold))
            place += len(sheet.places)
        return Cells(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def survivors(self, boxes_N4: FloatArray, groups_N: IntArray, overlap: nms.Overlap) -> npt.NDArray[np.bool_]:
        """By numpy; see `CascadeNets`."""
        return nms.survivors(boxes_N4, groups_N, overlap)

    def _propose_on(
        self, sheet: Sheet, loaded: AreaTables, layout: Layout, first_place: int, threshold: float
    ) -> tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray]:
        """The cells of a sheet whose tiles are numbered from `first_place` on."""
        pixels_1HW4 = np.zeros((1, SHEET_PX, SHEET_PX, 4), dtype=np.float32)
        for number, (tile, row, column) in enumerate(sheet.places, start=first_place):
            rows, columns = layout.spans(number)
            pixels_1HW4[0, row : row + tile.rows, column : column + tile.columns] = cut_tile(
                loaded, tile.photo, rows=rows, columns=columns
            )
        (cells_1HW6,) = self._run(0, pixels_1HW4, sheet.mask()[None, None])
        owner_HW = sheet.owners()
        lowest = difference_at(threshold) - _MARGIN
        passing_HW = (cells_1HW6[0, :, :, 1] - cells_1HW6[0, :, :, 0] >= lowest) & (owner_HW >= 0)
        row_M, column_M = np.nonzero(passing_HW)
        place_M = owner_HW[row_M, column_M].astype(np.int64) + first_place
        passing_M6 = cells_1HW6[0, row_M, column_M]
        row_M -= layout.places.row[place_M] // 2
        column_M -= layout.places.column[place_M] // 2
        return place_M, row_M, column_M, softmax_of_two(passing_M6[:, :2]), passing_M6[:, 2:]

    def refine(self, loaded: AreaTables, photos_N: IntArray, windows_N4: IntArray) -> tuple[FloatArray, FloatArray]:
        """RNet over windows; see `CascadeNets`."""
        out_N6 = self._over_windows(1, loaded, photos_N, windows_N4, side_px=_RNET_SIDE_PX, crops=_RNET_CROPS)
        return softmax_of_two(out_N6[:, :2]), out_N6[:, 2:]

    def decide(
        self, loaded: AreaTables, photos_N: IntArray, windows_N4: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """ONet over windows; see `CascadeNets`."""
        out_N16 = self._over_windows(2, loaded, photos_N, windows_N4, side_px=_ONET_SIDE_PX, crops=_ONET_CROPS)
        return softmax_of_two(out_N16[:, :2]), out_N16[:, 2:6], out_N16[:, 6:]

    def _over_windows(
        self, net: int, loaded: AreaTables, photos_N: IntArray, windows_N4: IntArray, *, side_px: int, crops: int
    ) -> FloatArray:
        """The net's outputs, (N, outputs), computed for `crops` windows at a time."""
        outputs = []
        pixels = np.zeros((crops, side_px, side_px, 4), dtype=np.float32)
        for start in range(0, len(windows_N4), crops):
            part = slice(start, start + crops)
            cut = cut_crops(loaded, photos_N[part], windows_N4[part], side_px=side_px)
            if len(cut) == crops:
                pixels = cut
            else:
                pixels[: len(cut)] = cut
            outputs.append(self._run(net, pixels)[0][: len(cut)].copy())
        return np.concatenate(outputs)

    def _run(self, net: int, *inputs: FloatArray) -> list[FloatArray]:
        """The net's outputs, valid until this thread's next call."""
        requests = getattr(self._requests, "of_this_thread", None)
        if requests is None:
            requests = self._requests.of_this_thread = [compiled.create_infer_request() for compiled in self._nets]
        found = requests[net].infer(list(inputs), share_inputs=True, share_outputs=True)
        return [found[output] for output in range(len(found))]


def _pnet() -> Any:
    """One sheet and its mask in, (1, cells, cells, 6) out: two logits, four corrections."""
    weights = _weights("pnet")
    pixels = ops.parameter([1, SHEET_PX, SHEET_PX, 4], np.float32)
    mask = ops.parameter([1, 1, SHEET_PX - 2, SHEET_PX - 2], np.float32)
    x = _conv(_to_nchw(pixels), weights, "conv1", "prelu1")
    x = _pool(ops.add(x, mask), kernel=2)
    x = _conv(x, weights, "conv2", "prelu2")
    x = _conv(x, weights, "conv3", "prelu3")
    heads = {
        f"heads.{kind}": np.concatenate([weights[f"conv4_{n}.{kind}"] for n in (1, 2)]) for kind in ("weight", "bias")
    }
    x = _conv(x, heads, "heads")
    return openvino.Model([ops.transpose(x, _ints(_NHWC))], [pixels, mask], "pnet")


def _rnet() -> Any:
    """Crops in, (crops, 6) out: two logits, four corrections."""
    weights = _weights("rnet")
    pixels = ops.parameter([_RNET_CROPS, _RNET_SIDE_PX, _RNET_SIDE_PX, 4], np.float32)
    x = _pool(_conv(_to_nchw(pixels), weights, "conv1", "prelu1"), kernel=3)
    x = _pool(_conv(x, weights, "conv2", "prelu2"), kernel=3)
    x = _conv(x, weights, "conv3", "prelu3")
    x = _dense(_columns_first(x), weights, "dense4", "prelu4")
    heads = [_dense(x, weights, name) for name in ("dense5_1", "dense5_2")]
    return openvino.Model([ops.concat(heads, axis=1)], [pixels], "rnet")


def _onet() -> Any:
    """Crops in, (crops, 16) out: two logits, four corrections, ten coordinates."""
    weights = _weights("onet")
    pixels = ops.parameter([_ONET_CROPS, _ONET_SIDE_PX, _ONET_SIDE_PX, 4], np.float32)
    x = _pool(_conv(_to_nchw(pixels), weights, "conv1", "prelu1"), kernel=3)
    x = _pool(_conv(x, weights, "conv2", "prelu2"), kernel=3)
    x = _pool(_conv(x, weights, "conv3", "prelu3"), kernel=2)
    x = _conv(x, weights, "conv4", "prelu4")
    x = _dense(_columns_first(x), weights, "dense5", "prelu5")
    heads = [_dense(x, weights, name) for name in ("dense6_1", "dense6_2", "dense6_3")]
    return openvino.Model([ops.concat(heads, axis=1)], [pixels], "onet")


def _weights(name: Any) -> Weights:
    return {key: tensor.numpy() for key, tensor in load_weights(name).items()}


def _conv(x: Any, weights: Weights, name: str, prelu: str | None = None) -> Any:
    kernel = weights[f"{name}.weight"]
    if kernel.shape[1] == 3:  # the first one, whose pixels have a channel of zeros
        kernel = np.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))
    x = ops.convolution(x, _floats(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    x = ops.add(x, _floats(weights[f"{name}.bias"][None, :, None, None]))
    return x if prelu is None else ops.prelu(x, _floats(weights[f"{prelu}.weight"]))


def _dense(x: Any, weights: Weights, name: str, prelu: str | None = None) -> Any:
    x = ops.matmul(x, _floats(weights[f"{name}.weight"]), False, True)
    x = ops.add(x, _floats(weights[f"{name}.bias"][None]))
    return x if prelu is None else ops.prelu(x, _floats(weights[f"{prelu}.weight"]))


def _pool(x: Any, *, kernel: int) -> Any:
    return ops.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [kernel, kernel], "ceil").output(0)


def _columns_first(x: Any) -> Any:
    """(N, C, H, W) as (N, W * H * C), the order of the dense layers' weights."""
    return ops.reshape(ops.transpose(x, _ints((0, 3, 2, 1))), _ints((0, -1)), True)


def _to_nchw(x: Any) -> Any:
    return ops.transpose(x, _ints(_NCHW))


def _floats(values: FloatArray) -> Any:
    return ops.constant(np.ascontiguousarray(values, dtype=np.float32))


def _ints(values: Sequence[int]) -> Any:
    return ops.constant(np.array(values, dtype=np.int64))
