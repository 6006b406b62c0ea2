import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from models.card import EncoderCard, InputSpec, parse_card
from models.encoder import EncoderError, load_encoder, unit_rows
from models.inception_resnet_v1 import InceptionResnetV1
from models.preprocess import preprocess_faces
from models.resnet50 import ResNet50
from models.torch_encoder import TorchNetwork, read_network

RNG = np.random.default_rng(0)
FACES = RNG.integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
WEIGHTS = RNG.normal(size=(768, 4)).astype(np.float32)
FACES_80 = RNG.integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
MakeOnnx = Callable[..., bytes]


@pytest.fixture
def tiny(make_onnx: MakeOnnx) -> bytes:
    return make_onnx(["n", 3, 16, 16], WEIGHTS)


@pytest.fixture(scope="module")
def narrow() -> InceptionResnetV1:
    network = InceptionResnetV1(0.25, 32).eval()
    network.initialise(3)
    return network


@pytest.fixture
def narrow_card(tiny_card: EncoderCard) -> EncoderCard:
    spec = InputSpec(height=80, width=80, colour="rgb", scale=1, mean=(127.5,) * 3, std=(128,) * 3)
    return tiny_card.model_copy(update={"architecture": "inception-resnet-v1-x0.25", "dimension": 32, "input": spec})


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def raw(faces: np.ndarray) -> np.ndarray:
    return faces.transpose(0, 3, 1, 2).reshape(len(faces), -1).astype(np.float64) @ WEIGHTS


def test_faces_over_several_chunks_come_back_in_order_and_of_unit_length(tiny_card: EncoderCard, tiny: bytes) -> None:
    embeddings = load_encoder(tiny_card, tiny).embed(FACES)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, unit(raw(FACES)), atol=1e-4)


def test_mirror_average_is_the_mean_of_both_unit_vectors(tiny_card: EncoderCard, tiny: bytes) -> None:
    card = tiny_card.model_copy(update={"mirror_average": True})
    embeddings = load_encoder(card, tiny).embed(FACES)
    np.testing.assert_allclose(embeddings, unit(unit(raw(FACES)) + unit(raw(FACES[:, :, ::-1]))), atol=1e-4)
    np.testing.assert_allclose(load_encoder(card, tiny).embed(FACES[:, :, ::-1].copy()), embeddings, atol=1e-4)


def test_no_faces_give_no_embeddings(
    tiny_card: EncoderCard, tiny: bytes, narrow_card: EncoderCard, narrow: InceptionResnetV1
) -> None:
    assert load_encoder(tiny_card, tiny).embed(FACES[:0]).shape == (0, 4)
    file = safetensors.torch.save(narrow.state_dict())
    assert load_encoder(narrow_card, file).embed(FACES_80[:0]).shape == (0, 32)


def test_torch_weights_embed_as_the_network_they_came_from(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    encoder = load_encoder(narrow_card, safetensors.torch.save(narrow.state_dict()))
    with torch.inference_mode():
        wanted = narrow((torch.from_numpy(FACES_80).permute(0, 3, 1, 2) - 127.5) / 128)
    np.testing.assert_allclose(encoder.embed(FACES_80), wanted.numpy(), atol=1e-5)
    assert encoder.card == narrow_card


def test_torch_and_openvino_embed_alike(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    file, card = safetensors.torch.save(narrow.state_dict()), narrow_card.model_copy(update={"mirror_average": True})
    on_torch = TorchNetwork(read_network(file, card))
    sides = [unit_rows(on_torch(preprocess_faces(faces, card.input))) for faces in (FACES_80, FACES_80[:, :, ::-1])]
    np.testing.assert_allclose(unit_rows(sum(sides)), load_encoder(card, file).embed(FACES_80), atol=1e-5)


def test_a_face_s_embedding_does_not_depend_on_its_company(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    encoder = load_encoder(narrow_card, safetensors.torch.save(narrow.state_dict()))
    faces = RNG.integers(0, 256, (67, 80, 80, 3), dtype=np.uint8)
    together = encoder.embed(faces)
    for number in (0, 3, 63, 64, 66):
        np.testing.assert_allclose(encoder.embed(faces[number : number + 1])[0], together[number], atol=1e-6)


def test_a_classifier_in_the_file_is_left_out(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    file = safetensors.torch.save({**narrow.state_dict(), "logits.weight": torch.zeros(9, 32)})
    assert load_encoder(narrow_card, file).embed(FACES_80).shape == (3, 32)


def test_embedding_leaves_torchs_threads_as_they_were(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    before = torch.get_num_threads()
    load_encoder(narrow_card, safetensors.torch.save(narrow.state_dict()), threads=before + 1).embed(FACES_80)
    assert torch.get_num_threads() == before


def test_weights_of_another_hash_are_refused_before_they_are_read(tiny_card: EncoderCard, tiny: bytes) -> None:
    card = tiny_card.model_copy(update={"sha256": hashlib.sha256(tiny).hexdigest()})
    load_encoder(card, tiny)
    with pytest.raises(EncoderError, match=rf"got sha256 .*wanted {card.sha256}.*fetch it again"):
        load_encoder(card, b"not even ONNX")


@pytest.mark.parametrize("architecture", [None, "resnet9000"])
def test_unknown_architectures_are_refused(tiny_card: EncoderCard, tiny: bytes, architecture: str | None) -> None:
    with pytest.raises(EncoderError, match=r"got architecture (none|resnet9000), wanted onnx, inception-resnet-v1"):
        load_encoder(tiny_card.model_copy(update={"architecture": architecture}), tiny)


def test_missing_unknown_and_misshapen_tensors_are_named(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    tensors = dict(narrow.state_dict())
    del tensors["last_bn.weight"]
    tensors["extra"] = torch.zeros(1)
    tensors["conv2d_1a.conv.weight"] = torch.zeros(8, 3, 5, 5)
    wanted = r"last_bn\.weight is missing; extra is unknown; conv2d_1a\.conv\.weight is \(8, 3, 5, 5\), wanted \(8, 3, 3, 3\)"
    with pytest.raises(EncoderError, match=wanted):
        load_encoder(narrow_card, safetensors.torch.save(tensors))


def test_weights_of_another_dimension_than_the_cards_are_refused(
    narrow_card: EncoderCard, narrow: InceptionResnetV1
) -> None:
    card = narrow_card.model_copy(update={"dimension": 64})
    with pytest.raises(EncoderError, match=r"with 64 dimensions: last_linear.*and \d+ more; correct the card"):
        load_encoder(card, safetensors.torch.save(narrow.state_dict()))


def header(document: object, *, claims: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file: the header's length, the header, the numbers."""
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text) if claims is None else claims) + text + data


@pytest.mark.parametrize(
    "file",
    [
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u.",
        b"",
        header({}, claims=2**63),
        header({}, claims=90_000_000),
        header({"last_bn.bias": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"last_bn.bias": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        header({"last_bn.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, data=bytes(4)),
        header({"last_bn.bias": {"dtype": "F9", "shape": [1], "data_offsets": [0, 4]}}, data=bytes(4)),
        header({"\x1b[2J" * 1000: "x"}),
        header([]),
        header({"deep": json.loads("[" * 100 + "]" * 100)}),
    ],
    ids=["pickle", "empty", "vast", "large", "terabytes", "overflow", "short", "dtype", "escapes", "list", "deep"],
)
def test_what_is_no_safetensors_file_is_refused_in_a_sentence(narrow_card: EncoderCard, file: bytes) -> None:
    with pytest.raises(
        EncoderError, match=rf"{len(file)} bytes that are not a safetensors file \(.*; convert"
    ) as refused:
        load_encoder(narrow_card, file)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_truncated_safetensors_file_is_refused(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    whole = safetensors.torch.save(narrow.state_dict())
    for kept in (7, 1000, len(whole) // 2, len(whole) - 1):
        with pytest.raises(EncoderError, match=rf"{kept} bytes that are not a safetensors file"):
            load_encoder(narrow_card, whole[:kept])


def test_numbers_of_another_kind_are_refused_and_half_precision_is_taken(
    narrow_card: EncoderCard, narrow: InceptionResnetV1
) -> None:
    state = narrow.state_dict()
    whole = {**state, "last_bn.bias": torch.zeros(32, dtype=torch.int32)}
    with pytest.raises(EncoderError, match=r"last_bn\.bias is torch\.int32, wanted torch\.float32"):
        load_encoder(narrow_card, safetensors.torch.save(whole))
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    embeddings = load_encoder(narrow_card, safetensors.torch.save(half)).embed(FACES_80)
    exact = load_encoder(narrow_card, safetensors.torch.save(state)).embed(FACES_80)
    assert (embeddings * exact).sum(axis=1).min() > 0.9999


def test_weights_that_are_not_finite_give_no_embedding(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    state = {**narrow.state_dict(), "last_bn.bias": torch.full((32,), torch.nan)}
    encoder = load_encoder(narrow_card, safetensors.torch.save(state))
    with pytest.raises(EncoderError, match="embedding 0: got a vector that is not finite"):
        encoder.embed(FACES_80)


@pytest.mark.parametrize("dimension", [16, 2048])
def test_resnet50_embeds_as_the_network_it_came_from(narrow_card: EncoderCard, dimension: int) -> None:
    network = ResNet50(dimension).eval()
    network.initialise(0)
    card = narrow_card.model_copy(update={"architecture": "resnet50", "dimension": dimension})
    encoder = load_encoder(card, safetensors.torch.save({**network.state_dict(), "fc.bias": torch.zeros(1000)}))
    with torch.inference_mode():
        wanted = network((torch.from_numpy(FACES_80).permute(0, 3, 1, 2) - 127.5) / 128)
    assert (encoder.embed(FACES_80) * wanted.numpy()).sum(axis=1).min() > 0.99999


def test_inputs_too_small_for_the_network_are_refused(narrow_card: EncoderCard, narrow: InceptionResnetV1) -> None:
    card = narrow_card.model_copy(update={"input": narrow_card.input.model_copy(update={"height": 74})})
    with pytest.raises(EncoderError, match=r"input 74 x 80, wanted at least 75 px"):
        load_encoder(card, safetensors.torch.save(narrow.state_dict()))


def test_faces_of_another_size_are_refused(tiny_card: EncoderCard, tiny: bytes) -> None:
    with pytest.raises(EncoderError, match=r"got uint8 \(3, 80, 80, 3\), wanted uint8 \(N, 16, 16, 3\)"):
        load_encoder(tiny_card, tiny).embed(FACES_80)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero")])
def test_vectors_without_a_direction_are_refused_by_number(
    make_onnx: MakeOnnx, tiny_card: EncoderCard, value: float, what: str
) -> None:
    encoder = load_encoder(tiny_card, make_onnx([1, 3, 16, 16], np.full((768, 4), value, np.float32)))
    with pytest.raises(EncoderError, match=rf"embedding 0: got a vector that is {what}"):
        encoder.embed(FACES)


def test_the_row_named_in_the_message_counts_over_all_chunks(tiny_card: EncoderCard, tiny: bytes) -> None:
    faces = FACES.copy()
    faces[67] = 0
    with pytest.raises(EncoderError, match="embedding 67: got a vector that is zero"):
        load_encoder(tiny_card, tiny).embed(faces)


def test_unit_rows_keep_tiny_and_huge_vectors() -> None:
    vectors = np.array([[3e-8, 4e-8], [3e30, 4e30]], np.float32)
    np.testing.assert_allclose(unit_rows(vectors), [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_mobilefacenet_embeds_a_face_like_its_mirror_image(real_data: Path) -> None:
    folder = real_data / "weights"
    document = json.loads((folder / "mobilefacenet.json").read_text())
    card = parse_card({**document, "architecture": "onnx"}, where="mobilefacenet.json")
    encoder = load_encoder(card, (folder / "mobilefacenet.onnx").read_bytes())
    faces = RNG.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    embeddings = encoder.embed(faces)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(encoder.embed(faces[:, :, ::-1].copy()), embeddings, atol=1e-5)
