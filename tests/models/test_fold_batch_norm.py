import pytest
import torch
from torch import nn

from models.architectures import FaceNetwork, build_network
from models.fold_batch_norm import fold_batch_norm


def lively(name: str, dimension: int = 16) -> FaceNetwork:
    """A network whose every batch-norm does something."""
    network = build_network(name, dimension).eval()
    network.initialise(0)
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network


@pytest.mark.parametrize(
    ("name", "dimension"), [("inception-resnet-v1-x0.25", 16), ("resnet50", 16), ("resnet50", 2048)]
)
@torch.inference_mode()
def test_a_folded_network_computes_the_same_without_any_batch_norm(name: str, dimension: int) -> None:
    network = lively(name, dimension)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in folded.modules())
    inputs = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(folded(inputs), network(inputs), atol=2e-6, rtol=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_batch_norm_whose_layer_is_used_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            y_NCHW = self.conv(x_NCHW)
            normed: torch.Tensor = self.bn(y_NCHW)
            return y_NCHW + normed

    network = Twice().eval()
    nn.init.normal_(network.bn.running_mean)
    folded = fold_batch_norm(network)
    inputs = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(inputs), network(inputs))
    assert any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training mode; call eval\(\) first"):
        fold_batch_norm(build_network("inception-resnet-v1-x0.25", 8))
