"""Published weights: what they are, and how their files are read without executing anything."""

import io
import warnings
import zipfile
from collections.abc import Mapping

import torch
from safetensors.torch import save
from torch import Tensor

from models.architectures import without_classifier
from models.card import BoxMargin, EncoderCard, InputSpec
from models.encoder_error import EncoderError
from models.torch_encoder import empty_network, first_few, problems_of_state_dict

__all__ = ["PUBLISHED_CARDS", "published_to_safetensors"]

_RELEASE = "https://github.com/timesler/facenet-pytorch/releases/tag/v2.2.9"
_FACENET = EncoderCard(
    format=1,
    architecture="inception-resnet-v1",
    input=InputSpec(
        height=160, width=160, colour="rgb", scale=1.0, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0)
    ),
    geometry=BoxMargin(box_margin=0.0),
    mirror_average=False,
    dimension=512,
    licence="weights: MIT, as facenet-pytorch, which published them; the photos they learned from have terms of their own",
)
_VGGFACE2 = _FACENET.model_copy(
    update={
        "name": "inception-resnet-v1:vggface2",
        "source": f"{_RELEASE}, 20180402-114759-vggface2.pt",
        "training": {"data": "VGGFace2", "people": 8631, "by": "David Sandberg, converted by facenet-pytorch"},
        "metrics": {"lfw_accuracy_published": 0.9965},
    }
)
_CASIA_WEBFACE = _FACENET.model_copy(
    update={
        "name": "inception-resnet-v1:casia-webface",
        "source": f"{_RELEASE}, 20180408-102900-casia-webface.pt",
        "training": {"data": "CASIA-WebFace", "people": 10575, "by": "David Sandberg, converted by facenet-pytorch"},
        "metrics": {"lfw_accuracy_published": 0.9905},
    }
)
_RESNET50 = EncoderCard(
    format=1,
    architecture="resnet50",
    input=InputSpec(
        height=224, width=224, colour="rgb", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    geometry=BoxMargin(box_margin=0.3),
    mirror_average=False,
    dimension=2048,
    name="resnet50",
    licence="weights: BSD-3-Clause, as torchvision, which published them; ImageNet's photos have terms of their own",
    source="https://download.pytorch.org/models/resnet50-0676ba61.pth, torchvision's IMAGENET1K_V1",
    training={"data": "ImageNet-1k", "classes": 1000, "by": "torchvision", "faces": "none: a start for training"},
)

PUBLISHED_CARDS: Mapping[str, EncoderCard] = {str(card.name): card for card in (_VGGFACE2, _CASIA_WEBFACE, _RESNET50)}
"""How published weights are used, by the name that `--encoder` takes.

facenet-pytorch's: 160 x 160 RGB of the MTCNN box itself, (x - 127.5) / 128, 512 dimensions. ResNet-50 has seen things and no
faces: 224 x 224 as it was trained, and 0.3 around the box, as lookalike's own training cuts faces, because a network of
things goes by outlines, and the box alone cuts off hair and chin.
"""


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
