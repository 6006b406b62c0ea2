"""Published weights: what they are, and how they are used."""

from collections.abc import Mapping

from models.card import BoxMargin, EncoderCard, InputSpec

__all__ = ["PUBLISHED_CARDS"]

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
