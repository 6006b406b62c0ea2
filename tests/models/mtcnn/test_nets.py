import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from models.mtcnn import weights
from models.mtcnn.area import area_tables, cut_crops
from models.mtcnn.cells import softmax_of_two
from models.mtcnn.nets import load_cascade_nets
from models.mtcnn.torch_nets import ONet, PNet, RNet, TorchNets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import facenet_pytorch


@pytest.mark.parametrize(("name", "net"), [("pnet", PNet()), ("rnet", RNet()), ("onet", ONet())])
def test_state_dicts_hold_the_published_names_and_shapes(name: weights.NetName, net: torch.nn.Module) -> None:
    wanted = {key: tensor.shape for key, tensor in weights.load_weights(name).items()}
    assert {key: tensor.shape for key, tensor in net.state_dict().items()} == wanted


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_candidates_get_what_the_published_nets_give(runtime: str) -> None:
    nets = load_cascade_nets() if runtime == "openvino" else TorchNets("cpu")
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (90, 120, 3), np.uint8), rng.integers(0, 256, (70, 64, 3), np.uint8)]
    corners_N2 = rng.integers(0, 20, (75, 2))  # more than a batch, and no multiple of one
    windows_N4 = np.concatenate([corners_N2, corners_N2 + rng.integers(1, 44, (75, 2))], axis=1)
    owners_N = rng.integers(0, 2, 75)
    loaded = nets.load(photos)
    tables = area_tables(photos)
    refined, decided = nets.refine(loaded, owners_N, windows_N4), nets.decide(loaded, owners_N, windows_N4)
    for side, found, published in ((24, refined, facenet_pytorch.RNet()), (48, decided, facenet_pytorch.ONet())):
        crops = torch.from_numpy(cut_crops(tables, owners_N, windows_N4, side_px=side)[..., :3]).permute(0, 3, 1, 2)
        with torch.inference_mode():
            shift, *points, scores = published(crops.contiguous())
        np.testing.assert_allclose(found[0], scores[:, 1].numpy(), atol=1e-5)
        np.testing.assert_allclose(found[1], shift.numpy(), atol=1e-4)
        for one, wanted in zip(found[2:], points, strict=True):
            np.testing.assert_allclose(one, wanted.numpy(), atol=1e-4)


def test_scores_tie_where_torchs_softmax_ties() -> None:
    """Of equal scores the order decides which box stays, so they must be equal to the last bit where torch's are."""
    far = np.concatenate([np.linspace(8, 20, 5000), np.linspace(-3, 3, 500)]).astype(np.float32)
    logits_N2 = np.stack([np.random.default_rng(0).normal(0, 3, len(far)), np.zeros(len(far))], axis=1).astype(
        np.float32
    )
    logits_N2[:, 1] = logits_N2[:, 0] + far
    wanted = torch.from_numpy(logits_N2).softmax(dim=1)[:, 1].numpy()
    found = softmax_of_two(logits_N2)
    np.testing.assert_array_equal(found[:5000] == 1, wanted[:5000] == 1)
    assert (found[:5000] == wanted[:5000]).mean() > 0.999
    np.testing.assert_allclose(found, wanted, atol=1.3e-7)


def loaded_modules(code: str) -> set[str]:
    watch = (
        "import sys; seen = []; "
        "sys.addaudithook(lambda name, args: name in ('socket.connect', 'socket.getaddrinfo') and seen.append(name)); "
    )
    names = "('openvino_telemetry', 'facenet_pytorch', 'torchvision', 'cv2', 'onnxruntime', 'torch')"
    end = f"; print(*[n for n in {names} if sys.modules.get(n)], *seen)"
    done = subprocess.run(
        [sys.executable, "-c", watch + code + end], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_nets_load_without_reporting_home_without_torch_and_without_the_package_their_weights_come_from() -> None:
    assert loaded_modules("from models.mtcnn.nets import load_cascade_nets; load_cascade_nets()") == set()


def test_openvino_on_its_own_loads_what_reports_home() -> None:
    """The twin of the test before: what the nets' module keeps out."""
    assert "openvino_telemetry" in loaded_modules("import os; os.environ['CI'] = 'true'; import openvino")
