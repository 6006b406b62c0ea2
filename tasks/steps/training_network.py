"""The network that a training starts with: a new one, or an encoder of the store."""

from dataclasses import dataclass
from typing import Any

from safetensors.torch import load, save

from models.architectures import FaceNetwork, build_network, is_network
from models.card import BoxMargin, EncoderCard, encoder_id, parse_card
from models.encoder import load_encoder
from models.inception_resnet_v1 import architecture_name
from models.training import training_input
from store.encoders import add_encoder, read_encoder
from store.errors import EncoderUnknownError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.storage import Storage

__all__ = ["DEMO_NETWORK", "GPU_NETWORK", "SCRATCH", "NetworkSettings", "keep_encoder", "new_encoder", "start_network"]

SCRATCH = "scratch"


@dataclass(frozen=True)
class NetworkSettings:
    """The network a training from scratch starts with.

    Attributes:
        width: share of the published network's channels, in (0, 1]; Inception-ResNet V1's only.
        dimension: of the embedding.
        input_px: side of the square input.
        box_margin: by how much the detector's box is made longer, in parts of its side.
        seed: of the first weights.
        architecture: "inception-resnet-v1" or "resnet50".
    """

    width: float = 0.25
    dimension: int = 128
    input_px: int = 80
    box_margin: float = 0.3
    seed: int = 0
    architecture: str = "inception-resnet-v1"

    def card(self) -> EncoderCard:
        """The card of such a network, without its weights' hash."""
        inception = self.architecture == "inception-resnet-v1"
        return EncoderCard(
            format=1,
            architecture=architecture_name(self.width) if inception else self.architecture,
            input=training_input(self.input_px, self.input_px),
            geometry=BoxMargin(box_margin=self.box_margin),
            mirror_average=False,
            dimension=self.dimension,
        )


DEMO_NETWORK = NetworkSettings(width=0.25, dimension=128, input_px=80, box_margin=0.2)
"""A narrow network that learns drawn people in a minute or two on two cores."""

GPU_NETWORK = NetworkSettings(width=1.0, dimension=512, input_px=160)
"""The published network's own size, for a GPU."""


def new_encoder(store: str, *, settings: NetworkSettings) -> str:
    """Put a network with random first weights into the store as an encoder; returns its id."""
    storage = open_store(store, create=True)
    card, network = start_network(storage, SCRATCH, settings)
    return keep_encoder(storage, card, network, extra={"name": f"untrained, seed {settings.seed}"})


def start_network(storage: Storage, start: str, settings: NetworkSettings) -> tuple[EncoderCard, FaceNetwork]:
    """The card and the network, with its first weights, that a training starts with.

    Args:
        storage: the store.
        start: "scratch", or the id in the store of one of the project's own networks.
        settings: what scratch means.

    Raises:
        EncoderUnknownError: the encoder is not there, or is none of the project's own networks.
        EncoderError: there is no such architecture.
    """
    if start == SCRATCH:
        card = settings.card()
        network = build_network(str(card.architecture), card.dimension)
        network.initialise(settings.seed)
        return card, network
    stored = read_encoder(storage, start)
    card = parse_card(stored.card, where=f"encoder {start}")
    if not is_network(card.architecture):
        raise EncoderUnknownError(
            f"encoder {start} is {card.architecture}: training starts from scratch, an Inception-ResNet V1 or a ResNet-50"
        )
    load_encoder(card, stored.weights)
    network = build_network(str(card.architecture), card.dimension)
    network.load_state_dict(load(stored.weights))
    return card, network


def keep_encoder(storage: Storage, card: EncoderCard, network: FaceNetwork, *, extra: dict[str, Any]) -> str:
    """Put a network into the store under a card like this one with `extra` in it; returns its id."""
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    forgotten = dict.fromkeys(("name", "licence", "source", "training", "metrics", "promotion", "calibration"))
    complete = card.model_copy(update={**forgotten, **extra, "sha256": sha256_hex(weights)})
    identity = encoder_id(complete)
    add_encoder(storage, identity, card=complete.model_dump(mode="json", exclude_none=True), weights=weights)
    return identity
