import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from models.mtcnn import weights


def test_the_package_is_read_as_data_and_never_imported() -> None:
    code = (
        "import sys; from models.mtcnn.nets import load_cascade_nets; load_cascade_nets(); "
        "print([name for name in ('facenet_pytorch', 'torchvision', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["pnet", "rnet", "onet"])
def test_every_tensor_is_the_one_that_torch_reads(name: weights.NetName) -> None:
    wanted = torch.load(weights._weights_path(name), weights_only=True)
    found = weights.load_weights(name)
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == np.float32
        assert found[key].flags.c_contiguous
        np.testing.assert_array_equal(found[key], tensor.numpy(), err_msg=key)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(weights.WeightsError, match=r"comes with facenet-pytorch, which is not installed"):
        weights.load_weights("rnet")


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_weights_path", lambda name: tmp_path / "gone.pt")
    with pytest.raises(weights.WeightsError, match=r"onet.pt cannot be read at .*gone.pt \(No such file"):
        weights.load_weights("onet")


def test_changed_weights_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def parse(*args: object, **options: object) -> None:
        raise AssertionError("unchecked bytes were parsed")

    changed = tmp_path / "pnet.pt"
    changed.write_bytes(b"anything")
    monkeypatch.setattr(weights, "_weights_path", lambda name: changed)
    monkeypatch.setattr(weights, "_LAYOUTS", {"pnet": parse})
    with pytest.raises(weights.WeightsError, match=f"has sha256 [0-9a-f]{{64}}, wanted {weights.SHA256['pnet']}"):
        weights.load_weights("pnet")
