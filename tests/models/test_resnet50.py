import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from models.resnet50 import ResNet50


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """torchvision's network, random weights and batch-norm statistics, without its classifier."""
    network = torchvision.models.resnet50(weights=None).eval()
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    network.fc = nn.Identity()
    return network


@pytest.fixture(scope="module")
def ours(published: nn.Module) -> ResNet50:
    network = ResNet50().eval()
    network.load_state_dict(published.state_dict())
    return network


@pytest.mark.parametrize("px", [32, 33, 112, 160])
@torch.inference_mode()
def test_embeddings_are_torchvisions_pooled_features_at_length_1(published: nn.Module, ours: ResNet50, px: int) -> None:
    inputs = torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(px))
    wanted = functional.normalize(published(inputs), dim=1)
    embeddings = ours(inputs)
    assert embeddings.shape == (2, 2048)
    assert (embeddings - wanted).abs().max() < 1e-5
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_names_and_shapes_are_torchvisions(published: nn.Module, ours: ResNet50) -> None:
    theirs = {name: tensor.shape for name, tensor in published.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == theirs


@torch.inference_mode()
def test_another_dimension_has_a_head_of_its_own(ours: ResNet50) -> None:
    network = ResNet50(64).eval()
    head = set(network.state_dict()) - set(ours.state_dict())
    assert {name.split(".")[0] for name in head} == {"last_linear", "last_bn"}
    missing = network.load_state_dict(ours.state_dict(), strict=False).missing_keys
    assert {*missing, "last_bn.num_batches_tracked"} == head
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    projected = ours(inputs) @ network.last_linear.weight.T
    torch.testing.assert_close(network(inputs), functional.normalize(projected, dim=1), atol=1e-5, rtol=1e-4)


def test_initialise_follows_its_seed_and_keeps_the_size_of_signals() -> None:
    networks = [ResNet50(32).eval() for _ in range(3)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        network.initialise(seed)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (network.state_dict() for network in networks)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    sizes: list[float] = []
    for layer in (networks[0].layer1, networks[0].layer3, networks[0].layer4):
        layer.register_forward_hook(lambda _m, _i, output: sizes.append(float(output.std())))
    with torch.inference_mode():
        embeddings = networks[0](torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert all(0.05 < size < 20 for size in sizes)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_a_dimension_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension: got 0"):
        ResNet50(0)
