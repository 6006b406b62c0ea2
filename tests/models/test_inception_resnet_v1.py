import facenet_pytorch
import pytest
import torch
from torch import nn

from models.inception_resnet_v1 import (
    SMALLEST_INPUT_PX,
    InceptionResnetV1,
    architecture_name,
    width_of_architecture,
    without_classifier,
)


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """facenet-pytorch's network, weights that keep signals alive through all layers, random batch-norm statistics."""
    alive = InceptionResnetV1()
    alive.initialise(0)
    network = facenet_pytorch.InceptionResnetV1(pretrained=None, classify=False).eval()
    network.load_state_dict(alive.state_dict())
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


@pytest.fixture(scope="module")
def ours(published: nn.Module) -> InceptionResnetV1:
    network = InceptionResnetV1().eval()
    network.load_state_dict(published.state_dict())
    return network


@pytest.mark.parametrize("px", [SMALLEST_INPUT_PX, 80, 96, 112, 160])
@torch.inference_mode()
def test_embeddings_are_those_of_facenet_pytorch(published: nn.Module, ours: InceptionResnetV1, px: int) -> None:
    inputs = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(px))
    embeddings = ours(inputs)
    assert (embeddings - published(inputs)).abs().max() < 1e-5
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_names_and_shapes_are_those_of_facenet_pytorch(published: nn.Module, ours: InceptionResnetV1) -> None:
    theirs = {name: tensor.shape for name, tensor in published.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == theirs


def test_published_files_load_once_their_classifier_is_dropped(ours: InceptionResnetV1) -> None:
    file = {**ours.state_dict(), "logits.weight": torch.zeros(8, 512), "logits.bias": torch.zeros(8)}
    network = InceptionResnetV1()
    with pytest.raises(RuntimeError, match=r"logits\.weight"):
        network.load_state_dict(file)
    network.load_state_dict(without_classifier(file))
    assert torch.equal(network.last_linear.weight, ours.last_linear.weight)


def test_narrow_networks_have_the_layers_of_the_published_one(ours: InceptionResnetV1) -> None:
    narrow = InceptionResnetV1(0.25, 64)
    assert list(narrow.state_dict()) == list(ours.state_dict())
    channels = {module.out_channels for module in narrow.modules() if isinstance(module, nn.Conv2d)}
    assert all(count % 8 == 0 for count in channels)
    assert narrow.eval()(torch.zeros(1, 3, 80, 80)).shape == (1, 64)


def test_initialise_follows_its_seed_and_leaves_torchs_random_state_alone() -> None:
    networks = [InceptionResnetV1(0.25, 64) for _ in range(3)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        network.initialise(seed)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (dict(network.state_dict()) for network in networks)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv2d_1a.conv.weight"], other["conv2d_1a.conv.weight"])


def test_initialise_keeps_the_size_of_signals() -> None:
    network = InceptionResnetV1(0.25, 64).eval()
    network.initialise(0)
    inputs = torch.randn(4, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    sizes: list[float] = []
    for layer in (network.conv2d_4b, network.repeat_2, network.block8):
        layer.register_forward_hook(lambda _m, _i, output: sizes.append(float(output.std())))
    with torch.inference_mode():
        network(inputs)
    assert all(0.05 < size < 20 for size in sizes)


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0, 1.5])
def test_the_name_of_an_architecture_tells_its_width(width: float) -> None:
    assert width_of_architecture(architecture_name(width)) == width


@pytest.mark.parametrize("name", ["onnx", "inception-resnet-v1-x", "inception-resnet-v1-x0", "inception-resnet-v1-x1"])
def test_names_of_no_width_stand_for_none(name: str) -> None:
    assert width_of_architecture(name) is None


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="width: got 0"):
        InceptionResnetV1(0)
    with pytest.raises(ValueError, match="dimension: got 0"):
        InceptionResnetV1(0.25, 0)
