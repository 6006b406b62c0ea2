"""The networks of this project by the names that cards give them."""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from models.encoder_error import EncoderError
from models.inception_resnet_v1 import InceptionResnetV1, width_of_architecture
from models.resnet50 import ARCHITECTURE as RESNET50
from models.resnet50 import ResNet50

__all__ = ["ARCHITECTURES", "FaceNetwork", "build_network", "is_network", "without_classifier"]

FaceNetwork: TypeAlias = InceptionResnetV1 | ResNet50
"""A module of preprocessed faces, float32 (N, 3, H, W), to unit vectors, float32 (N, D), with `initialise(seed)`."""

ARCHITECTURES = "inception-resnet-v1, inception-resnet-v1-x<width> or resnet50"
"""What a message names when it is asked for another one."""


def is_network(architecture: str | None) -> bool:
    """Whether it is the name of one of these networks."""
    return architecture is not None and (architecture == RESNET50 or width_of_architecture(architecture) is not None)


def build_network(architecture: str, dimension: int) -> FaceNetwork:
    """The network that a card names, its weights not yet set: load a state dict, or call `initialise(seed)`.

    Args:
        architecture: "inception-resnet-v1", "resnet50" or, with fewer channels, "inception-resnet-v1-x0.5".
        dimension: length of its embeddings, at least 1; resnet50 has 2048 without a head, any other with one.

    Raises:
        EncoderError: there is no such network; the message names those there are.
        ValueError: a dimension below 1.
    """
    if architecture == RESNET50:
        return ResNet50(dimension)
    width = width_of_architecture(architecture)
    if width is None:
        raise EncoderError(f"got architecture {architecture}, wanted {ARCHITECTURES}; correct the card")
    return InceptionResnetV1(width, dimension)


def without_classifier(network: FaceNetwork, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict less the classifier that published files carry for what they were trained to name."""
    return {name: value for name, value in state_dict.items() if not name.startswith(network.published_classifier)}
