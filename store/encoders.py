"""Encoders as they are kept: a weights file and its card under the encoder's id."""

import json
from dataclasses import dataclass
from typing import Any

from store.errors import ArtifactError, EncoderUnknownError
from store.fingerprints import canonical_json
from store.layout import ENCODER_CURRENT, encoder_folder
from store.storage import Storage

__all__ = [
    "StoredEncoder",
    "add_encoder",
    "encoder_in_use",
    "promote_encoder",
    "read_card",
    "read_encoder",
    "stored_encoders",
]

_WEIGHTS = ("weights.safetensors", "model.onnx")


@dataclass(frozen=True)
class StoredEncoder:
    """An encoder's card, as parsed JSON, and the bytes of its weights."""

    card: dict[str, Any]
    weights: bytes


def add_encoder(storage: Storage, encoder: str, *, card: dict[str, Any], weights: bytes) -> None:
    """Keep an encoder, weights first and card last; one that is there already stays as it is."""
    name = "model.onnx" if card.get("architecture") == "onnx" else "weights.safetensors"
    folder = encoder_folder(encoder)
    if storage.exists(f"{folder}/card.json"):
        return
    storage.write(f"{folder}/{name}", weights)
    storage.create(f"{folder}/card.json", json.dumps(json.loads(canonical_json(card)), indent=1).encode() + b"\n")


def read_encoder(storage: Storage, encoder: str) -> StoredEncoder:
    """An encoder of the store; its weights are checked against the card's hash before anybody parses them.

    Raises:
        EncoderUnknownError: the store holds no such encoder; the message lists those it has.
        ArtifactError: the card is no card, or the weights are missing or not those it names.
    """
    card = read_card(storage, encoder)
    folder = encoder_folder(encoder)
    names = set(storage.names(folder))
    name = next((n for n in _WEIGHTS if n in names), None)
    if name is None:
        raise ArtifactError(f"{storage.uri_of(folder)} holds no weights, wanted {' or '.join(_WEIGHTS)}")
    return StoredEncoder(card=card, weights=storage.read(f"{folder}/{name}", sha256=card["sha256"]))


def read_card(storage: Storage, encoder: str) -> dict[str, Any]:
    """An encoder's card, as parsed JSON, without its weights.

    Raises:
        EncoderUnknownError: the store holds no such encoder; the message lists those it has.
        ArtifactError: the card is no card.
    """
    path = f"{encoder_folder(encoder)}/card.json"
    if not storage.exists(path):
        there = ", ".join(stored_encoders(storage)) or "none"
        raise EncoderUnknownError(f"the store {storage.uri} has no encoder {encoder}; it has {there}")
    try:
        card = json.loads(storage.read(path))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{storage.uri_of(path)} is not JSON: {error}") from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
        raise ArtifactError(f"{storage.uri_of(path)} names no sha256 of the weights: it is not an encoder's card")
    return card


def stored_encoders(storage: Storage) -> list[str]:
    """The ids of the encoders that the store holds, sorted."""
    return [n for n in storage.names("encoders") if n != "CURRENT" and storage.exists(f"{encoder_folder(n)}/card.json")]


def encoder_in_use(storage: Storage) -> str | None:
    """The id that promotion wrote, or None."""
    if not storage.exists(ENCODER_CURRENT):
        return None
    return storage.read(ENCODER_CURRENT).decode().strip()


def promote_encoder(storage: Storage, encoder: str) -> None:
    """Make an encoder the one that later builds use by default."""
    read_encoder(storage, encoder)
    storage.write(ENCODER_CURRENT, encoder.encode())
