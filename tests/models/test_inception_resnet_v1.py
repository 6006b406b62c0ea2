import copy

import facenet_pytorch
import pytest
import torch
from torch import nn

from models.inception_resnet_v1 import InceptionResnetV1, architecture_name, width_of_architecture


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


@pytest.mark.parametrize("px", [InceptionResnetV1.smallest_input_px, 80, 96, 112, 160])
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


@torch.inference_mode()
def test_every_layer_gives_what_facenet_pytorch_s_gives(published: nn.Module, ours: InceptionResnetV1) -> None:
    def outputs_of(network: nn.Module) -> dict[str, torch.Tensor]:
        seen: dict[str, torch.Tensor] = {}
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
                layer.register_forward_hook(lambda _m, _i, output, name=name: seen.__setitem__(name, output.flatten()))
        network(torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0)))
        return seen

    theirs, found = outputs_of(copy.deepcopy(published)), outputs_of(copy.deepcopy(ours))
    assert list(found) == list(theirs)
    assert len(found) == 111 * 2 + 21 + 2  # convolutions with batch-norm, without, and the head
    for name, output in found.items():
        assert torch.cosine_similarity(output, theirs[name], dim=0) > 0.9999, name
        torch.testing.assert_close(output.norm(), theirs[name].norm(), rtol=1e-4, atol=1e-6)


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
