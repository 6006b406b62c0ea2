"""From what a user calls an encoder to one that stands in the store."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.card import CardError, EncoderCard, encoder_id, parse_card
from models.encoder import Encoder, load_encoder
from models.encoder_error import EncoderError
from models.published import PUBLISHED_CARDS
from store.encoders import add_encoder, encoder_in_use, read_card, read_encoder, stored_encoders
from store.errors import ArtifactError, EncoderUnknownError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.storage import Storage
from store.versions import current_number, read_version
from tasks.steps.published_weights import WEIGHTS_FILES, read_published

__all__ = ["EncoderRef", "load_stored_encoder", "resolve_encoder"]

DEFAULT = "inception-resnet-v1:vggface2"
_MOST_BYTES = 2**31  # of a user's own weights; an ONNX file cannot be larger


@dataclass(frozen=True)
class EncoderRef:
    """An encoder that stands in the store.

    Attributes:
        id: 32 hex digits.
        name: as its card has it, or the id.
        dimension: of its embeddings.
    """

    id: str
    name: str
    dimension: int


def resolve_encoder(asked: str | None, *, store: str) -> EncoderRef:
    """The encoder a build is to use, put into the store when it is not there.

    Args:
        asked: a published encoder's name (its weights are downloaded once), an id in the store, or a path to an ONNX or
            safetensors file with its card beside it; None takes the promoted one, else the published version's, else
            `inception-resnet-v1:vggface2`.
        store: the store's uri.

    Raises:
        EncoderUnknownError: no such encoder, or its weights cannot be had or used; the message says how to come by them.
    """
    storage = open_store(store, create=True)
    if asked is None:
        asked = encoder_in_use(storage) or _of_current_version(storage) or DEFAULT
    if asked in stored_encoders(storage):
        card = parse_card(read_card(storage, asked), where=f"encoder {asked}")
    elif asked in WEIGHTS_FILES:
        card = _stored_as(storage, asked) or _add(storage, *read_published(asked), where=asked)
    elif asked.endswith((".onnx", ".safetensors")):
        card = _add_file(storage, Path(asked).expanduser())
    else:
        there = ", ".join([*WEIGHTS_FILES, *stored_encoders(storage)])
        raise EncoderUnknownError(
            f"unknown encoder {asked!r}: give one of {there}, or the path of an .onnx or .safetensors file with its card"
        )
    identity = encoder_id(card)
    return EncoderRef(id=identity, name=card.name or identity, dimension=card.dimension)


def load_stored_encoder(storage: Storage, encoder: str, *, device: str = "cpu", threads: int = 1) -> Encoder:
    """An encoder of the store, ready to embed.

    Raises:
        EncoderUnknownError: the store holds none of that id.
        ArtifactError: its card or its weights are not those that the id names.
    """
    stored, where = read_encoder(storage, encoder), f"{storage.uri}/encoders/{encoder}/card.json"
    card = parse_card(stored.card, where=where)
    if (got := encoder_id(card)) != encoder:
        raise ArtifactError(
            f"{where} was damaged or changed: it describes the encoder {got}, in the folder of {encoder}; nothing is embedded "
            "with it. Restore the card, or move it and its weights out of the store and build with the encoder's file again"
        )
    return load_encoder(card, stored.weights, device=device, threads=threads)


def _of_current_version(storage: Storage) -> str | None:
    return read_version(storage).manifest.encoder.id if current_number(storage) is not None else None


def _stored_as(storage: Storage, published: str) -> EncoderCard | None:
    """The card of a published encoder that this store holds already: its file is then not needed."""
    wanted = PUBLISHED_CARDS[published]
    for encoder in stored_encoders(storage):
        card = parse_card(read_card(storage, encoder), where=f"encoder {encoder}")
        if (card.name, card.source, card.architecture) == (wanted.name, wanted.source, wanted.architecture):
            return card
    return None


def _add_file(storage: Storage, weights: Path) -> EncoderCard:
    card_file = weights.with_suffix(".json")
    for needed in (weights, card_file):
        if not needed.is_file():
            raise EncoderUnknownError(
                f"{needed} does not exist: an encoder is {weights.name} with {card_file.name} beside it"
            )
    try:
        document: Any = json.loads(card_file.read_bytes())
        card = parse_card(document, where=str(card_file))
    except CardError as error:
        raise EncoderUnknownError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise EncoderUnknownError(f"{card_file} is not JSON: {error}") from error
    if weights.suffix == ".onnx":
        card = card.model_copy(update={"architecture": "onnx"})
    return _add(storage, card, _read(weights), where=str(weights))


def _read(weights: Path) -> bytes:
    with weights.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise EncoderUnknownError(f"{weights} has more than {_MOST_BYTES:,} bytes, the limit of an encoder")
    return data


def _add(storage: Storage, card: EncoderCard, weights: bytes, *, where: str) -> EncoderCard:
    sha256 = sha256_hex(weights)
    if card.sha256 is not None and card.sha256 != sha256:
        raise EncoderUnknownError(
            f"{where} is not the file its card names: its sha256 is {sha256[:12]}…, the card says {card.sha256[:12]}…"
        )
    card = card.model_copy(update={"sha256": sha256})
    try:
        _try(load_encoder(card, weights))
        identity = encoder_id(card)
    except (EncoderError, CardError) as error:
        raise EncoderUnknownError(f"{where} cannot be used: {error}") from error
    add_encoder(storage, identity, card=card.model_dump(mode="json", exclude_none=True), weights=weights)
    return card


def _try(encoder: Encoder) -> None:
    """Embed one picture of noise, so that weights which give no directions are refused before any face is searched."""
    spec = encoder.card.input
    encoder.embed(np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8))
