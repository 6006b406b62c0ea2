import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from models.architectures import build_network
from models.fold_batch_norm import fold_batch_norm
from models.fuse_relu import ConvRelu, fuse_relu


def inputs() -> Tensor:
    return torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "left"), [("inception-resnet-v1-x0.25", 1), ("resnet50", 4)])
@torch.inference_mode()
def test_a_fused_network_computes_the_same_in_fewer_steps(name: str, left: int) -> None:
    network = build_network(name, 16).eval()
    network.initialise(0)
    wanted, fused = network(inputs()), fuse_relu(fold_batch_norm(network))
    torch.testing.assert_close(fused(inputs()), wanted, atol=2e-6, rtol=0)
    convolutions = [module for module in fused.modules() if isinstance(module, nn.Conv2d)]
    assert sum(not isinstance(module, ConvRelu) for module in convolutions) == left
    assert not any("relu" in str(node.target).lower() for node in fused.graph.nodes if node.op == "call_function")


class Wanted(nn.Module):
    """What must stay: a convolution whose result is wanted twice, and a ReLU of something else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        once = self.conv(x_NCHW)
        return functional.relu(once) + once + functional.relu(x_NCHW - once)


@torch.inference_mode()
def test_a_convolution_wanted_elsewhere_too_is_left_alone() -> None:
    torch.manual_seed(0)
    network = Wanted().eval()
    fused = fuse_relu(fx.symbolic_trace(network))
    assert not any(isinstance(module, ConvRelu) for module in fused.modules())
    torch.testing.assert_close(fused(inputs()), network(inputs()))


@torch.inference_mode()
def test_scale_stride_and_a_missing_bias_go_into_the_one_step() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, (1, 3), stride=2, padding=(0, 1), bias=False)
    added = torch.randn(2, 5, 40, 40)
    wanted = functional.relu(added + 0.17 * conv(inputs()))
    torch.testing.assert_close(ConvRelu(conv, scale=0.17)(inputs(), added), wanted)
