"""What the cascade asks of a runtime: pixels of any photos in, scores and corrections out, in full batches.

Two runtimes give it: OpenVINO on the processor (`openvino_nets`), torch on a GPU (`torch_nets`). A photo's results do not
depend on the other photos of its batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.mtcnn.layout import Layout
from models.mtcnn.nms import Overlap

__all__ = ["CascadeNets", "Cells", "difference_at", "load_cascade_nets", "softmax_of_two"]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Cells:
    """PNet's windows that may pass, in no particular order.

    Args:
        place: int64, (M,), which of the layout's tiles each lies in.
        row: int64, (M,), in cells of the tile.
        column: int64, (M,), likewise.
        score: float32, (M,), in [0, 1].
        shift: float32, (M, 4), corrections of x1, y1, x2, y2 in sides of the window.
    """

    place: IntArray
    row: IntArray
    column: IntArray
    score: FloatArray
    shift: FloatArray


class CascadeNets(Protocol):
    """PNet, RNet and ONet on one device."""

    @property
    def device(self) -> str:
        """Where they compute: "cpu" or a CUDA device."""

    def load(self, photos: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """What the other methods cut levels and crops from: the photos, uint8 (H, W, 3) each, on the device."""

    def propose(self, loaded: Any, layout: Layout, *, threshold: float) -> Cells:
        """PNet over every sheet.

        Args:
            loaded: the photos.
            layout: their levels, on sheets.
            threshold: lowest score, in [0, 1].
        """

    def refine(self, loaded: Any, photos_N: IntArray, windows_N4: IntArray) -> tuple[FloatArray, FloatArray]:
        """RNet over windows of the photos: scores (N,) in [0, 1] and corrections (N, 4) in sides of the box.

        Args:
            loaded: the photos.
            photos_N: which photo each window lies in.
            windows_N4: first column, first row, end column, end row; none empty, all inside the photo.
        """

    def decide(
        self, loaded: Any, photos_N: IntArray, windows_N4: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """ONet over windows of the photos: scores (N,), corrections (N, 4), and landmarks (N, 10) in sides of the box."""

    def survivors(self, boxes_N4: FloatArray, groups_N: IntArray, overlap: Overlap) -> BoolArray:
        """Which boxes survive suppression: `nms.survivors`, to the last bit, where it is fastest."""


def load_cascade_nets(device: str = "cpu") -> CascadeNets:
    """The nets with facenet-pytorch's weights, on the fastest runtime there is for the device.

    Args:
        device: "cpu" for OpenVINO on one core, "cuda" or "cuda:1" for torch on a GPU.

    Raises:
        WeightsError: the weights are missing or are not the published ones.
    """
    if device == "cpu":
        from models.mtcnn.openvino_nets import OpenVinoNets  # noqa: PLC0415

        return OpenVinoNets()
    from models.mtcnn.torch_nets import TorchNets  # noqa: PLC0415

    return TorchNets(device)


def softmax_of_two(logits_N2: FloatArray) -> FloatArray:
    """The second one's share, float32 (N,); rounded as torch rounds it, since ONet's often tie at exactly 1."""
    shifted_N2 = np.exp(logits_N2 - logits_N2.max(axis=1, keepdims=True))
    share_N: FloatArray = shifted_N2[:, 1] / (shifted_N2[:, 0] + shifted_N2[:, 1])
    return share_N


def difference_at(share: float) -> float:
    """The difference of two logits at which `softmax_of_two` gives the second one this share, in [0, 1]."""
    return math.log(share / (1 - share)) if 0 < share < 1 else math.inf * (share - 0.5)
