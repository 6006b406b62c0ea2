import numpy as np
import pytest
import torch

from models.reconstruction import ReconstructionLoss


def test_the_loss_is_the_mean_square_over_all_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    rebuilt, crops = torch.rand(2, 3, 4, 5, generator=generator), torch.rand(2, 3, 4, 5, generator=generator)
    wanted = sum(float(rebuilt[i] - crops[i]) ** 2 for i in np.ndindex(2, 3, 4, 5)) / (2 * 3 * 4 * 5)
    assert float(ReconstructionLoss()(rebuilt, crops)) == pytest.approx(wanted, rel=1e-5)
    assert float(ReconstructionLoss()(crops, crops)) == 0


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got rebuilt \(2, 3, 4, 4\) and crops \(1, 3, 4, 4\)"):
        ReconstructionLoss()(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
