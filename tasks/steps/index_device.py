"""What of an index is computed on a GPU: its queries' exact nearest faces, and the centres of its lists.

A device is "cpu" (numpy and FAISS, without torch), "cuda" or "cuda:1"; "cpu:0" is torch on the processor, which does what a GPU does.
What takes the processor less time than it takes to load torch and to wake a GPU stays on the processor.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from models.near_pairs import Screen, near_pairs
from store.errors import LookalikeError
from store.index_choice import Candidate

__all__ = ["centres_for", "screen_for"]

_WORTH_COMPARING = 2**31  # products of two numbers: 256 queries with half a block of faces of 512 dimensions
_WORTH_TRAINING = 2**34  # the same, a round: 1,024 lists of 512 dimensions, with 40 faces each

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def screen_for(device: str) -> Screen:
    """What `NearestFaces.added` compares all queries with all faces by; who is nearest is the same, to the last bit, on every device.

    Args:
        device: as the module says.

    Returns:
        A function that raises LookalikeError where the device is missing or has too little memory.
    """
    if device == "cpu":
        return near_pairs

    def screen(queries_QD: Floats, faces_BD: Floats, floors_Q: Floats, near: int) -> tuple[Ints, Ints]:
        if queries_QD.size * len(faces_BD) < _WORTH_COMPARING:
            return near_pairs(queries_QD, faces_BD, floors_Q, near)
        from models.device_search import screen_on  # noqa: PLC0415  torch takes seconds

        with _said():
            return screen_on(device)(queries_QD, faces_BD, floors_Q, near)

    return screen


def centres_for(candidate: Candidate, sample_SD: Floats, *, device: str) -> Floats | None:
    """The centres of an index's lists, float32 (L, D); None where FAISS is to find them, for they are few, or where there are no lists.

    Args:
        candidate: the kind.
        sample_SD: float32, unit length: what the index is trained on.
        device: as the module says.

    Raises:
        LookalikeError: the device is missing or has too little memory.
    """
    if device == "cpu" or not 0 < candidate.lists <= len(sample_SD):
        return None
    if sample_SD.size * candidate.lists < _WORTH_TRAINING:
        return None
    from models.spherical_kmeans import centres_of  # noqa: PLC0415  torch takes seconds

    with _said():
        return centres_of(sample_SD, candidate.lists, device=device)


@contextmanager
def _said() -> Iterator[None]:
    from models.on_device import DeviceError  # noqa: PLC0415  torch takes seconds

    try:
        yield
    except DeviceError as error:
        raise LookalikeError(str(error)) from error
