"""From what a user calls an encoder to one that stands in the store."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.card import CardError, EncoderCard, encoder_id, parse_card
from models.encoder import Encoder, load_encoder
from models.encoder_error import EncoderError
from models.published import PUBLISHED_CARD, published_to_safetensors
from store.encoders import add_encoder, encoder_in_use, read_encoder, stored_encoders
from store.errors import EncoderUnknownError
from store.fingerprints import sha256_hex
from store.layout import open_store
from store.storage import Storage
from store.versions import current_number, read_version

__all__ = ["EncoderRef", "load_stored_encoder", "resolve_encoder", "weights_folder"]

DEFAULT = "inception-resnet-v1:vggface2"
_PUBLISHED = {
    "inception-resnet-v1:vggface2": (
        "20180402-114759-vggface2.pt",
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
    ),
    "inception-resnet-v1:casia-webface": ("20180408-102900-casia-webface.pt", None),
}


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


def weights_folder() -> Path:
    """Where published weights are looked for: `weights` under LOOKALIKE_CACHE, by default the user's cache folder."""
    cache = os.environ.get("LOOKALIKE_CACHE")
    root = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lookalike"
    return root / "weights"


def resolve_encoder(asked: str | None, *, store: str) -> EncoderRef:
    """The encoder a build is to use, put into the store when it is not there.

    Args:
        asked: a published encoder's name, an id in the store, or a path to an ONNX or safetensors file with its card
            beside it; None takes the promoted one, else the published version's, else `inception-resnet-v1:vggface2`.
        store: the store's uri.

    Raises:
        EncoderUnknownError: no such encoder, or its weights are not here; the message says how to come by them.
    """
    storage = open_store(store, create=True)
    if asked is None:
        asked = encoder_in_use(storage) or _of_current_version(storage) or DEFAULT
    if asked in stored_encoders(storage):
        card = parse_card(read_encoder(storage, asked).card, where=f"encoder {asked}")
    elif asked in _PUBLISHED:
        card = _add_published(storage, asked)
    elif asked.endswith((".onnx", ".safetensors")):
        card = _add_file(storage, Path(asked).expanduser())
    else:
        there = ", ".join([*_PUBLISHED, *stored_encoders(storage)])
        raise EncoderUnknownError(
            f"unknown encoder {asked!r}: give one of {there}, or the path of an .onnx or .safetensors file with its card"
        )
    identity = encoder_id(card)
    return EncoderRef(id=identity, name=card.name or identity, dimension=card.dimension)


def load_stored_encoder(storage: Storage, encoder: str, *, device: str = "cpu", threads: int = 1) -> Encoder:
    """An encoder of the store, ready to embed.

    Raises:
        EncoderUnknownError: the store holds none of that id.
    """
    stored = read_encoder(storage, encoder)
    card = parse_card(stored.card, where=f"{storage.uri}/encoders/{encoder}/card.json")
    return load_encoder(card, stored.weights, device=device, threads=threads)


def _of_current_version(storage: Storage) -> str | None:
    return read_version(storage).manifest.encoder.id if current_number(storage) is not None else None


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
    return _add(storage, card, weights.read_bytes(), where=str(weights))


def _add_published(storage: Storage, asked: str) -> EncoderCard:
    file, sha256 = _PUBLISHED[asked]
    path = weights_folder() / file
    if not path.is_file():
        raise EncoderUnknownError(
            f"the weights of {asked} are not here: put {file}, from facenet-pytorch's release v2.2.9, into "
            f"{path.parent}, or give --encoder the path of an .onnx or .safetensors file with its card beside it"
        )
    data = path.read_bytes()
    if sha256 is not None and sha256_hex(data) != sha256:
        raise EncoderUnknownError(
            f"{path} is not the published file: its sha256 is {sha256_hex(data)[:12]}…, wanted {sha256[:12]}…"
        )
    card = PUBLISHED_CARD.model_copy(update={"name": asked, "source": f"facenet-pytorch, {file}"})
    try:
        return _add(storage, card, published_to_safetensors(data), where=str(path))
    except EncoderError as error:
        raise EncoderUnknownError(f"{path}: {error}") from error


def _add(storage: Storage, card: EncoderCard, weights: bytes, *, where: str) -> EncoderCard:
    sha256 = sha256_hex(weights)
    if card.sha256 is not None and card.sha256 != sha256:
        raise EncoderUnknownError(
            f"{where} is not the file its card names: its sha256 is {sha256[:12]}…, the card says {card.sha256[:12]}…"
        )
    card = card.model_copy(update={"sha256": sha256})
    try:
        load_encoder(card, weights)
        identity = encoder_id(card)
    except (EncoderError, CardError) as error:
        raise EncoderUnknownError(f"{where} cannot be used: {error}") from error
    add_encoder(storage, identity, card=card.model_dump(mode="json", exclude_none=True), weights=weights)
    return card
