import torch
from torch import nn

from models.batch_norm import recalibrate_batch_norm


def test_statistics_become_the_plain_mean_over_the_batches() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    network[0].running_mean.fill_(99)
    network[0].weight.data.fill_(2)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(5, 3, 4, 4, generator=generator) * k + k for k in (1, 2, 3)]
    recalibrate_batch_norm(network, batches)
    wanted_mean = sum(batch.mean(dim=(0, 2, 3)) for batch in batches) / 3
    wanted_var = sum(batch.var(dim=(0, 2, 3)) for batch in batches) / 3
    torch.testing.assert_close(network[0].running_mean, wanted_mean)
    torch.testing.assert_close(network[0].running_var, wanted_var)
    assert network[0].momentum == 0.3
    assert network[0].weight.eq(2).all()
    assert not network.training


def test_one_batch_then_embeds_in_evaluation_as_in_training() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.BatchNorm1d(3))
    inputs = torch.randn(400, 4) + 5
    trained = network.train()(inputs).detach()
    assert not torch.allclose(network.eval()(inputs), trained, atol=0.1)
    recalibrate_batch_norm(network, [inputs])
    torch.testing.assert_close(network(inputs), trained, atol=0.02, rtol=0)
