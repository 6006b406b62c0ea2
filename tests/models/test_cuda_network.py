import numpy as np
import pytest
import torch

from models.cuda_network import BATCH_SIZES, CudaNetwork, cut_into_batches
from models.encoder import unit_rows
from models.inception_resnet_v1 import InceptionResnetV1
from models.people import training_input
from models.preprocess import preprocess_faces
from models.torch_encoder import TorchNetwork

SPEC = training_input(80, 80)
FACES = np.random.default_rng(0).integers(0, 256, (300, 80, 80, 3), dtype=np.uint8)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU at hand")


def narrow() -> InceptionResnetV1:
    network = InceptionResnetV1(0.25, 32)
    network.initialise(3)
    return network.eval()


@pytest.mark.parametrize("count", [1, 2, 8, 9, 64, 65, 256, 257, 600])
def test_faces_are_computed_once_each_in_recorded_sizes(count: int) -> None:
    batches = cut_into_batches(count)
    assert sum(faces for faces, _ in batches) == count
    assert all(size in BATCH_SIZES and 0 < faces <= size for faces, size in batches)


@on_a_gpu
@pytest.mark.parametrize("count", [1, 5, 64, 300])
def test_a_gpu_gives_what_the_processor_gives(count: int) -> None:
    wanted = unit_rows(TorchNetwork(narrow())(preprocess_faces(FACES[:count], SPEC)))
    found = unit_rows(CudaNetwork(narrow(), SPEC, device="cuda")(FACES[:count]))
    assert (wanted * found).sum(axis=1).min() > 0.9999


@on_a_gpu
def test_an_answer_is_not_overwritten_by_the_next_one() -> None:
    network = CudaNetwork(narrow(), SPEC, device="cuda")
    first = network(FACES[:8])
    kept = first.copy()
    network(FACES[8:16])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(network(FACES[:8]), kept)


@on_a_gpu
def test_a_network_beyond_float16_goes_on_in_float32() -> None:
    network = narrow()
    with torch.no_grad():
        network.conv2d_2b.conv.weight *= 1e5
    wanted = unit_rows(TorchNetwork(network)(preprocess_faces(FACES[:8], SPEC)))
    found = unit_rows(CudaNetwork(network, SPEC, device="cuda")(FACES[:8]))
    assert (wanted * found).sum(axis=1).min() > 0.999
