"""How the files of published weights are read without executing anything."""

import io
import warnings
import zipfile

import torch
from safetensors.torch import save
from torch import Tensor

from models.architectures import without_classifier
from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.torch_encoder import empty_network, first_few, problems_of_state_dict

__all__ = ["published_to_safetensors"]


def published_to_safetensors(data: bytes, card: EncoderCard) -> bytes:
    """A published state dict as safetensors, without its classifier.

    Only names, shapes and numbers are read (torch's weights-only reader); shapes are compared with the network's before
    anything of a claimed size is made.

    Args:
        data: the bytes of a `.pt` or `.pth` file, of either of torch's formats.
        card: names the network.

    Raises:
        EncoderError: the bytes are no plain state dict of that network; nothing in them was executed.
    """
    network = empty_network(card)
    _refuse_archive(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a stranger's file has torch say is said in the refusal
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes can make its reader raise anything
        raise EncoderError(
            f"the file holds no plain state dict ({type(error).__name__}); nothing in it was run"
        ) from error
    if not isinstance(state, dict) or not all(_is_plain(name, value) for name, value in state.items()):
        raise EncoderError(
            f"the file holds {type(state).__name__}, wanted a state dict of plain tensors; nothing in it was run"
        )
    kept = _with_counters(without_classifier(network, state))
    if problems := problems_of_state_dict(kept, wanted=network.state_dict()):
        raise EncoderError(
            f"the file holds another network than {card.architecture}: {first_few(problems)}; nothing in it was run"
        )
    return save({name: value.contiguous() for name, value in kept.items()})


def _refuse_archive(data: bytes) -> None:
    """Refuse a zip that is a program, or that would grow when it is read: torch stores its tensors as they are."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except Exception as error:  # a stranger's bytes
        raise EncoderError(
            f"the file holds no plain state dict ({type(error).__name__}); nothing in it was run"
        ) from error
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise EncoderError("the file holds a TorchScript program, wanted a plain state dict; nothing in it was run")
    size = sum(entry.file_size for entry in entries)
    if size > len(data) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise EncoderError(
            f"the file is a compressed archive of {size} bytes, wanted tensors stored as they are; nothing in it was run"
        )


def _is_plain(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and type(value) in (Tensor, torch.nn.Parameter)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _with_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the batch counters that torch before 0.4.1 did not keep; nothing depends on them."""
    norms = [name.removesuffix("running_var") for name in state if name.endswith(".running_var")]
    return {**{f"{norm}num_batches_tracked": torch.zeros((), dtype=torch.int64) for norm in norms}, **state}
