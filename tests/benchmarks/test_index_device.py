import sys
from importlib.util import find_spec

import pytest
import torch

from benchmarks.index_device import main, measure


def test_both_sides_find_the_same_faces_and_their_times_and_recalls_are_told() -> None:
    told = measure(faces=3_000, lists=16, dimension=32, device="cpu:0", rounds=1)
    assert told["truth"]["same_to_the_last_bit"] is True
    assert told["truth"]["ratio"] > 0
    training = told["training"]
    assert (training["processor_by"], training["sample"]) == ("faiss" if find_spec("faiss") else "torch", 640)
    assert training["same_bytes_twice_on_device"] is True
    assert training["device_recall_at_10"]["8"] == pytest.approx(training["processor_recall_at_10"]["8"], abs=0.1)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU at hand")
    monkeypatch.setattr(sys, "argv", ["index_device"])
    assert main() == 1
    assert capsys.readouterr().err == "no GPU is at hand here: --device cuda needs one\n"
