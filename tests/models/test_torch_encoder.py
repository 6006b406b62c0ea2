import numpy as np
import pytest
import torch

from models.encoder_error import EncoderError
from models.inception_resnet_v1 import InceptionResnetV1
from models.torch_encoder import TorchNetwork

FACES = torch.randn(5, 3, 96, 80, generator=torch.Generator().manual_seed(0))


def network() -> InceptionResnetV1:
    built = InceptionResnetV1(0.25, 32).eval()
    built.initialise(0)
    return built


def test_in_float32_it_is_the_network() -> None:
    with torch.inference_mode():
        wanted = network()(FACES).numpy()
    np.testing.assert_allclose(TorchNetwork(network())(FACES), wanted, atol=1e-5)


@pytest.mark.parametrize(("half", "far"), [(torch.bfloat16, 5e-2), (torch.float16, 5e-3)])
def test_half_precision_rounds_the_convolutions_and_nothing_after_them(half: torch.dtype, far: float) -> None:
    """What runs on a GPU, here on the processor."""
    exact, rounded = TorchNetwork(network())(FACES), TorchNetwork(network(), convolutions=half)(FACES)
    assert rounded.dtype == np.float32
    assert 1e-6 < np.abs(exact - rounded).max() < far
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, atol=1e-6)  # no half-precision number is so near


def test_a_network_beyond_float16_s_range_goes_on_in_float32() -> None:
    def vast() -> InceptionResnetV1:
        built = network()
        for layer in (built.conv2d_1a, built.conv2d_2a):
            torch.nn.init.constant_(layer.bn.weight, 1e3)
        return built

    exact = TorchNetwork(vast())(FACES)
    assert np.isfinite(exact).all()
    rounded = TorchNetwork(vast(), convolutions=torch.float16)(FACES)
    np.testing.assert_allclose(rounded, exact, atol=5e-3)
    assert np.isnan(TorchNetwork(network(), convolutions=torch.float16)(FACES * torch.nan)).all()


def test_a_gpu_that_is_not_there_is_refused_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EncoderError, match="device cuda: torch sees no GPU here"):
        TorchNetwork(network(), device="cuda")
