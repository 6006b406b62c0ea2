"""Published encoders: their files brought to this machine, and read."""

from collections.abc import Callable
from functools import partial

from models.card import EncoderCard
from models.published import PUBLISHED_CARDS
from store.weights import WeightsFile, fetch_weights
from tasks.steps.progress import report

__all__ = ["WEIGHTS_FILES", "read_published"]

_FACENET = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9"
_TORCHVISION = "https://download.pytorch.org/models"
_MIB = 2**20

WEIGHTS_FILES = {
    "inception-resnet-v1:vggface2": WeightsFile(
        name="20180402-114759-vggface2.pt",
        url=f"{_FACENET}/20180402-114759-vggface2.pt",
        bytes=111_898_327,
        max_bytes=111_898_327,
        sha256="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
    ),
    "inception-resnet-v1:casia-webface": WeightsFile(
        name="20180408-102900-casia-webface.pt",
        url=f"{_FACENET}/20180408-102900-casia-webface.pt",
        max_bytes=160 * _MIB,
    ),
    "resnet50": WeightsFile(
        name="resnet50-0676ba61.pth",
        url=f"{_TORCHVISION}/resnet50-0676ba61.pth",
        max_bytes=160 * _MIB,
        sha256="0676ba61",
    ),
}
"""The file of each published encoder; of the last two the publishers name no hash, or its beginning."""


def read_published(name: str) -> tuple[EncoderCard, bytes]:
    """A published encoder's card and its weights as safetensors, downloaded where this machine does not have them.

    Args:
        name: one of `WEIGHTS_FILES`.

    Raises:
        EncoderUnknownError: the file cannot be had or cannot be used; the message says what to do.
    """
    from models.published_file import published_to_safetensors  # noqa: PLC0415  torch, which most builds do not need

    card = PUBLISHED_CARDS[name]
    accept = partial(published_to_safetensors, card=card)
    return card, fetch_weights(WEIGHTS_FILES[name], accept=accept, tell=_telling())


def _telling() -> Callable[[int, int], None]:
    """Reports progress in MiB, as people read it, and each of them once."""
    told = -1

    def tell(done_bytes: int, all_bytes: int) -> None:
        nonlocal told
        if (done := -(-done_bytes // _MIB)) != told:
            told = done
            report("download", done, -(-all_bytes // _MIB))

    return tell
