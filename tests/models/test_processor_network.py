import numpy as np
import pytest
import torch
from torch import nn

import models.processor_network
from models.batch_norm import recalibrate_batch_norm
from models.card import InputSpec
from models.inception_resnet_v1 import InceptionResnetV1
from models.openvino_network import BATCH_FACES, OpenVinoNetwork
from models.openvino_precision import multiplies_bfloat16
from models.portraits import draw_person, draw_portrait
from models.preprocess import preprocess_faces
from models.processor_network import processor_network

needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")


def spec_of(side: int) -> InputSpec:
    return InputSpec(height=side, width=side, colour="rgb", scale=1, mean=(127.5,) * 3, std=(128,) * 3)


SPEC = spec_of(160)
DRAWN = np.stack([draw_portrait(draw_person(50 + number), view_seed=number, size_px=160) for number in range(32)])
CALIBRATION, FACES = (preprocess_faces(part, SPEC) for part in (DRAWN[9:], DRAWN[:9]))


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    """The published size, alive through all layers."""
    network = InceptionResnetV1()
    network.initialise(0)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, 0, 0.2)
    recalibrate_batch_norm(network, [torch.from_numpy(CALIBRATION)])
    return network.eval()


@pytest.fixture(scope="module")
def mixed(network: InceptionResnetV1) -> OpenVinoNetwork:
    return processor_network(network, SPEC)


@torch.inference_mode()
def test_embeddings_stay_over_a_cosine_of_0_9999(network: InceptionResnetV1, mixed: OpenVinoNetwork) -> None:
    assert mixed.bfloat16_convolutions == (117 if multiplies_bfloat16() else 0)
    wanted_ND = network(torch.from_numpy(FACES)).numpy()
    assert (wanted_ND * mixed(FACES)).sum(axis=1, dtype=np.float64).min() > 0.9999
    assert (wanted_ND @ wanted_ND.T)[np.triu_indices(len(FACES), 1)].max() < 0.95  # or all would be alike anyhow


def test_company_and_loading_again_change_no_bit(network: InceptionResnetV1, mixed: OpenVinoNetwork) -> None:
    together_ND = mixed(FACES)
    np.testing.assert_array_equal(mixed(FACES[::-1])[::-1], together_ND)
    for number in (0, BATCH_FACES, len(FACES) - 1):
        np.testing.assert_array_equal(mixed(FACES[number : number + 1])[0], together_ND[number])
    np.testing.assert_array_equal(processor_network(network, SPEC)(FACES), together_ND)


def test_full_precision_is_float32(network: InceptionResnetV1) -> None:
    assert processor_network(network, SPEC, full_precision=True).bfloat16_convolutions == 0


@needs_bfloat16
@pytest.mark.parametrize("limit", [1.0, 0.9])
def test_a_network_whose_trial_fails_stays_float32(
    monkeypatch: pytest.MonkeyPatch, network: InceptionResnetV1, limit: float
) -> None:
    monkeypatch.setattr(models.processor_network, "TRIAL_COSINE", limit)
    assert (processor_network(network, spec_of(96)).bfloat16_convolutions > 0) == (limit < 1)


@needs_bfloat16
def test_weights_that_are_not_finite_fail_the_trial(network: InceptionResnetV1) -> None:
    broken = InceptionResnetV1()
    broken.load_state_dict({**network.state_dict(), "last_bn.bias": torch.full((512,), torch.nan)})
    assert processor_network(broken.eval(), spec_of(96)).bfloat16_convolutions == 0


def test_a_narrow_network_stays_float32() -> None:
    narrow = InceptionResnetV1(0.25, 64).eval()
    narrow.initialise(0)
    assert processor_network(narrow, spec_of(96)).bfloat16_convolutions == 0
