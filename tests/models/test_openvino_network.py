import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.architectures import FaceNetwork, build_network
from models.batch_norm import recalibrate_batch_norm
from models.openvino_network import OpenVinoNetwork

RNG = np.random.default_rng(0)
FACES = RNG.normal(size=(5, 3, 96, 80)).astype(np.float32)


def plausible(name: str, dimension: int) -> FaceNetwork:
    network = build_network(name, dimension)
    network.initialise(0)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    recalibrate_batch_norm(network, [torch.from_numpy(FACES)])
    return network


@pytest.fixture(scope="module")
def narrow() -> OpenVinoNetwork:
    return OpenVinoNetwork(plausible("inception-resnet-v1-x0.25", 32), height=96, width=80)


@pytest.mark.parametrize(
    ("name", "dimension"), [("inception-resnet-v1-x0.25", 32), ("resnet50", 16), ("resnet50", 2048)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_embeddings_are_torchs(name: str, dimension: int, threads: int) -> None:
    network = plausible(name, dimension)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(FACES)).numpy()
    found = OpenVinoNetwork(network, height=96, width=80, threads=threads)(FACES)
    assert found.dtype == np.float32
    assert (found * wanted).sum(axis=1).min() > 0.999999
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_face_s_embedding_does_not_depend_on_its_company(narrow: OpenVinoNetwork) -> None:
    together = narrow(FACES)
    for number in range(len(FACES)):
        np.testing.assert_array_equal(narrow(FACES[number : number + 1])[0], together[number])
    np.testing.assert_array_equal(narrow(FACES[::-1]), together[::-1])


def test_threads_that_share_a_network_get_their_own_results(narrow: OpenVinoNetwork) -> None:
    wanted = [narrow(FACES[number : number + 1]) for number in range(len(FACES))]
    wrong: list[int] = []

    def embed(number: int) -> None:
        for _ in range(10):
            if not np.array_equal(narrow(FACES[number : number + 1]), wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=embed, args=(number,)) for number in range(len(FACES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_results_survive_the_next_call(narrow: OpenVinoNetwork) -> None:
    first = narrow(FACES[:1])
    copy = first.copy()
    narrow(FACES[1:2])
    np.testing.assert_array_equal(first, copy)


def test_a_step_that_is_not_known_is_named() -> None:
    class Odd(nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return torch.erf(x_NCHW)

    with pytest.raises(NotImplementedError, match="no OpenVINO node is known for erf"):
        OpenVinoNetwork(Odd().eval(), height=8, width=8)


def test_it_reports_nothing_home_and_leaves_no_files(tmp_path: Path) -> None:
    code = (
        "import sys; seen = []; sys.addaudithook(lambda name, args: name == 'socket.connect' and seen.append(name)); "
        "import torch; from models.architectures import build_network; from models.openvino_network import OpenVinoNetwork; "
        "network = build_network('inception-resnet-v1-x0.25', 8).eval(); network.initialise(0); "
        "import numpy; OpenVinoNetwork(network, height=75, width=75)(numpy.ones((1, 3, 75, 75), 'f4')); "
        "print(seen, sys.modules['openvino_telemetry'], [n for n in ('facenet_pytorch', 'torchvision') if n in sys.modules])"
    )
    project = Path(__file__).resolve().parents[2]
    env = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] None []"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
