"""The cascade's published weights, read as data out of the installed facenet-pytorch package.

The three files are of torch's format of before 2020: pickled names and shapes, then each tensor as a count (int64) and its
float32, columns before rows. Nothing is unpickled. A file is the published one to the last byte or it is refused, so where
each tensor lies in it is known beforehand and stands here; and a process that only finds faces need not import torch, which
takes longer than finding the faces of a hundred photos.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["DISTRIBUTION", "SHA256", "NetName", "WeightsError", "load_weights"]

FloatArray = npt.NDArray[np.float32]
NetName = Literal["pnet", "rnet", "onet"]

DISTRIBUTION = "facenet-pytorch"
SHA256: dict[NetName, str] = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


class WeightsError(RuntimeError):
    """The cascade's weights cannot be used; the message says which file, what it holds and what to do."""


@dataclass(frozen=True)
class _Layout:
    """Where a file's tensors lie.

    Args:
        names_end: bytes of pickled names and shapes at its start; the tensors are all that follows.
        shapes: of each tensor, in the order in which they follow.
    """

    names_end: int
    shapes: dict[str, tuple[int, ...]]

    def tensors(self, data: bytes) -> Iterator[tuple[str, FloatArray]]:
        """Each tensor by its name, in C order."""
        at = self.names_end
        for name, shape in self.shapes.items():
            at += 8  # the count
            stored = np.frombuffer(data, "<f4", math.prod(shape), at)
            yield name, stored.reshape(shape, order="F").astype(np.float32, order="C")
            at += stored.nbytes


_LAYOUTS: dict[NetName, _Layout] = {
    "pnet": _Layout(
        names_end=1938,
        shapes={
            "conv2.weight": (16, 10, 3, 3),
            "conv4_1.weight": (2, 32, 1, 1),
            "conv4_2.bias": (4,),
            "conv4_2.weight": (4, 32, 1, 1),
            "conv3.bias": (32,),
            "prelu3.weight": (32,),
            "conv4_1.bias": (2,),
            "conv3.weight": (32, 16, 3, 3),
            "prelu1.weight": (10,),
            "conv1.bias": (10,),
            "conv2.bias": (16,),
            "conv1.weight": (10, 3, 3, 3),
            "prelu2.weight": (16,),
        },
    ),
    "rnet": _Layout(
        names_end=2307,
        shapes={
            "conv1.bias": (28,),
            "dense5_2.weight": (4, 128),
            "conv2.bias": (48,),
            "conv1.weight": (28, 3, 3, 3),
            "conv3.bias": (64,),
            "prelu2.weight": (48,),
            "conv3.weight": (64, 48, 2, 2),
            "dense5_1.weight": (2, 128),
            "dense4.weight": (128, 576),
            "dense5_2.bias": (4,),
            "prelu3.weight": (64,),
            "dense4.bias": (128,),
            "conv2.weight": (48, 28, 3, 3),
            "prelu4.weight": (128,),
            "prelu1.weight": (28,),
            "dense5_1.bias": (2,),
        },
    ),
    "onet": _Layout(
        names_end=2941,
        shapes={
            "dense6_2.bias": (4,),
            "prelu5.weight": (256,),
            "dense6_2.weight": (4, 256),
            "dense6_1.bias": (2,),
            "conv2.bias": (64,),
            "dense6_3.weight": (10, 256),
            "dense6_3.bias": (10,),
            "dense6_1.weight": (2, 256),
            "conv3.bias": (64,),
            "conv4.weight": (128, 64, 2, 2),
            "prelu2.weight": (64,),
            "conv3.weight": (64, 64, 3, 3),
            "conv4.bias": (128,),
            "prelu4.weight": (128,),
            "prelu3.weight": (64,),
            "dense5.bias": (256,),
            "conv1.weight": (32, 3, 3, 3),
            "conv1.bias": (32,),
            "conv2.weight": (64, 32, 3, 3),
            "prelu1.weight": (32,),
            "dense5.weight": (256, 1152),
        },
    ),
}


def load_weights(name: NetName) -> dict[str, FloatArray]:
    """The state dict of one of the three nets.

    The package is found by its metadata and never imported. The file's SHA-256 is checked before anything of it is used.

    Args:
        name: which net, "pnet", "rnet" or "onet".

    Returns:
        float32 arrays by the names of the published checkpoint.

    Raises:
        WeightsError: the package or its file is missing, or the file's hash is another one.
    """
    path = _weights_path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{name}.pt cannot be read at {path} ({error.strerror}). Reinstall {DISTRIBUTION} 2.5.3."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise WeightsError(
            f"{path} has sha256 {found}, wanted {SHA256[name]}. Install {DISTRIBUTION} 2.5.3, whose weights these are."
        )
    return dict(_LAYOUTS[name].tensors(data))


def _weights_path(name: NetName) -> Path:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"{name}.pt comes with {DISTRIBUTION}, which is not installed. Run pip install {DISTRIBUTION}==2.5.3"
        ) from error
    return Path(str(distribution.locate_file(f"facenet_pytorch/data/{name}.pt")))
