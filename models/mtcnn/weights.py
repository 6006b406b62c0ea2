"""The cascade's published weights, read as data out of the installed facenet-pytorch package."""

import hashlib
import io
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

__all__ = ["DISTRIBUTION", "SHA256", "NetName", "WeightsError", "load_weights"]

NetName = Literal["pnet", "rnet", "onet"]

DISTRIBUTION = "facenet-pytorch"
SHA256: dict[NetName, str] = {
    "pnet": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


class WeightsError(RuntimeError):
    """The cascade's weights cannot be used; the message says which file, what it holds and what to do."""


def load_weights(name: NetName) -> dict[str, torch.Tensor]:
    """The state dict of one of the three nets, on the CPU.

    The package is found by its metadata and never imported. The file's SHA-256 is checked before it is parsed.

    Args:
        name: which net, "pnet", "rnet" or "onet".

    Returns:
        float32 tensors by the names of the published checkpoint.

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
    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


def _weights_path(name: NetName) -> Path:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"{name}.pt comes with {DISTRIBUTION}, which is not installed. Run pip install {DISTRIBUTION}==2.5.3"
        ) from error
    return Path(str(distribution.locate_file(f"facenet_pytorch/data/{name}.pt")))
