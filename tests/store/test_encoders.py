import json
from pathlib import Path

import pytest

from store.encoders import add_encoder, encoder_in_use, promote_encoder, read_card, read_encoder, stored_encoders
from store.errors import ArtifactError, EncoderUnknownError
from store.fingerprints import sha256_hex
from store.storage import Storage

WEIGHTS = b"many numbers"
CARD = {"format": 1, "architecture": "inception-resnet-v1", "sha256": sha256_hex(WEIGHTS)}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


def test_an_encoder_comes_back_as_it_was_added(storage: Storage) -> None:
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    add_encoder(storage, "e2", card=CARD | {"architecture": "onnx"}, weights=WEIGHTS)
    assert storage.names("encoders/e1") == ["card.json", "weights.safetensors"]
    assert storage.names("encoders/e2") == ["card.json", "model.onnx"]
    assert read_encoder(storage, "e1").card == CARD
    assert read_encoder(storage, "e2").weights == WEIGHTS
    assert stored_encoders(storage) == ["e1", "e2"]


def test_an_encoder_that_is_there_stays_as_it_is(storage: Storage) -> None:
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    add_encoder(storage, "e1", card=CARD | {"name": "another"}, weights=b"others")
    assert read_encoder(storage, "e1").weights == WEIGHTS
    assert read_encoder(storage, "e1").card == CARD


def test_an_encoder_whose_card_was_never_written_is_not_there(storage: Storage) -> None:
    storage.write("encoders/e1/weights.safetensors", b"half-wri")
    assert stored_encoders(storage) == []
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    assert read_encoder(storage, "e1").weights == WEIGHTS


def test_weights_that_were_tampered_with_are_refused(storage: Storage) -> None:
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    storage.write("encoders/e1/weights.safetensors", b"worse numbers")
    with pytest.raises(ArtifactError, match=r"encoders/e1/weights\.safetensors has changed: its sha256 is"):
        read_encoder(storage, "e1")


@pytest.mark.parametrize(("card", "what"), [(b"{", "is not JSON"), (b"[]", "names no sha256"), (b"{}", "names no sha")])
def test_a_card_that_was_tampered_with_is_refused(storage: Storage, card: bytes, what: str) -> None:
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    storage.write("encoders/e1/card.json", card)
    with pytest.raises(ArtifactError, match=rf"encoders/e1/card\.json {what}"):
        read_encoder(storage, "e1")


def test_a_card_can_be_read_without_its_weights(storage: Storage) -> None:
    storage.write("encoders/e1/card.json", json.dumps(CARD).encode())
    assert read_card(storage, "e1") == CARD
    with pytest.raises(EncoderUnknownError, match="has no encoder e2; it has e1$"):
        read_card(storage, "e2")


def test_missing_weights_are_named(storage: Storage) -> None:
    storage.write("encoders/e1/card.json", json.dumps(CARD).encode())
    with pytest.raises(ArtifactError, match=r"encoders/e1 holds no weights, wanted weights.safetensors or model.onnx"):
        read_encoder(storage, "e1")


def test_an_unknown_id_lists_what_there_is(storage: Storage) -> None:
    with pytest.raises(EncoderUnknownError, match="has no encoder e9; it has none$"):
        read_encoder(storage, "e9")
    for name in ("e2", "e1"):
        add_encoder(storage, name, card=CARD, weights=WEIGHTS)
    with pytest.raises(EncoderUnknownError, match="has no encoder e9; it has e1, e2$"):
        read_encoder(storage, "e9")


def test_promotion_names_the_encoder_in_use_and_takes_only_what_is_there(storage: Storage) -> None:
    assert encoder_in_use(storage) is None
    add_encoder(storage, "e1", card=CARD, weights=WEIGHTS)
    promote_encoder(storage, "e1")
    assert encoder_in_use(storage) == "e1"
    with pytest.raises(EncoderUnknownError, match="has no encoder e2"):
        promote_encoder(storage, "e2")
    assert encoder_in_use(storage) == "e1"
    assert stored_encoders(storage) == ["e1"]
