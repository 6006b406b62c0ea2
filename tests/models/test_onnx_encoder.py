import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.card import EncoderCard
from models.encoder_error import EncoderError
from models.onnx_encoder import OnnxNetwork

MakeOnnx = Callable[..., bytes]
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(768, 4)).astype(np.float32)
FACES = RNG.normal(size=(5, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 5, 8, "n"], ids=["one", "two", "five", "eight", "open"])
def test_every_kind_of_batch_gives_the_matrix_product(
    make_onnx: MakeOnnx, tiny_card: EncoderCard, batch: int | str
) -> None:
    network = OnnxNetwork(make_onnx([batch, 3, 16, 16], WEIGHTS), tiny_card)
    np.testing.assert_allclose(network(FACES), FACES.reshape(5, -1) @ WEIGHTS, rtol=1e-4, atol=1e-4)


def test_sizes_left_open_by_the_file_take_the_cards(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    network = OnnxNetwork(make_onnx(["n", 3, "h", "w"], WEIGHTS), tiny_card)
    np.testing.assert_allclose(network(FACES), FACES.reshape(5, -1) @ WEIGHTS, rtol=1e-4, atol=1e-4)


def test_half_precision_files_are_fed_half_precision(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    network = OnnxNetwork(make_onnx(["n", 3, 16, 16], WEIGHTS.astype(np.float16), kind=10), tiny_card)
    embeddings = network(FACES)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, FACES.reshape(5, -1) @ WEIGHTS, atol=0.3)


def test_no_faces_give_no_embeddings(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    for batch in (1, "n"):
        assert OnnxNetwork(make_onnx([batch, 3, 16, 16], WEIGHTS), tiny_card)(FACES[:0]).shape == (0, 4)


def test_cuda_falls_back_to_the_processor_where_there_is_none(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    assert OnnxNetwork(make_onnx([1, 3, 16, 16], WEIGHTS), tiny_card, device="cuda")(FACES).shape == (5, 4)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 2)])
def test_two_inputs_or_outputs_are_refused(
    make_onnx: MakeOnnx, tiny_card: EncoderCard, inputs: int, outputs: int
) -> None:
    with pytest.raises(EncoderError, match=rf"got {inputs} \(face0.*in and {outputs} \(embedding0.*wanted one of each"):
        OnnxNetwork(make_onnx([1, 3, 16, 16], WEIGHTS, inputs=inputs, outputs=outputs), tiny_card)


@pytest.mark.parametrize("shape", [[1, 3, 16, 24], [1, 16, 16, 3], [3, 16, 16]], ids=["wide", "channels-last", "flat"])
def test_an_input_of_another_shape_than_the_cards_is_refused(
    make_onnx: MakeOnnx, tiny_card: EncoderCard, shape: list[int]
) -> None:
    weights = np.zeros((int(np.prod(shape[1:])), 4), np.float32)
    with pytest.raises(EncoderError, match=r"input face0 is \[.*wanted \(N, 3, 16, 16\)"):
        OnnxNetwork(make_onnx(shape, weights), tiny_card)


def test_another_dimension_than_the_cards_is_refused(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    with pytest.raises(EncoderError, match=r"got an output of \(1, 7\).*wanted \(1, 4\)"):
        OnnxNetwork(make_onnx([1, 3, 16, 16], np.zeros((768, 7), np.float32)), tiny_card)


def test_an_input_of_whole_numbers_is_refused(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    double = 11
    with pytest.raises(EncoderError, match=r"input face0 is tensor\(double\), wanted tensor\(float\)"):
        OnnxNetwork(make_onnx([1, 3, 16, 16], WEIGHTS.astype(np.float64), kind=double), tiny_card)


@pytest.mark.parametrize("model", [b"", b"not an ONNX file", b"\x00" * 100])
def test_bytes_that_are_no_onnx_are_refused(tiny_card: EncoderCard, model: bytes) -> None:
    with pytest.raises(EncoderError, match=rf"ONNX file: {len(model)} bytes that cannot be loaded"):
        OnnxNetwork(model, tiny_card)


def test_a_file_that_fails_while_running_is_refused(make_onnx: MakeOnnx, tiny_card: EncoderCard) -> None:
    with pytest.raises(EncoderError, match=r"failed on an input of \(1, 3, 16, 16\)"):
        OnnxNetwork(make_onnx(["n", "c", "h", "w"], np.zeros((700, 4), np.float32)), tiny_card)


def test_it_gives_the_machine_no_id_and_leaves_no_files(tmp_path: Path) -> None:
    project = Path(__file__).resolve().parents[2]
    env = {"PATH": os.environ["PATH"]}  # in automatic tests, as CI says, it reports nothing
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(project)}
    for code, left in (("import onnxruntime", True), ("import models.onnx_encoder", False)):
        waiting = f"{code}, time; time.sleep(2)"  # it is done beside what a program does
        subprocess.run([sys.executable, "-c", waiting], env=env, cwd=tmp_path, check=True, timeout=120)
        assert bool(list(tmp_path.rglob("*"))) is left, code
        shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
