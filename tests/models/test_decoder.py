import pytest
import torch

from models.decoder import Decoder


@pytest.mark.parametrize(("height", "width"), [(80, 80), (112, 112), (160, 160), (112, 96), (16, 75)])
def test_a_rebuilt_crop_has_the_size_asked_for_and_the_range_of_pixels(height: int, width: int) -> None:
    decoder = Decoder(8, height, width, channels=2)
    rebuilt = decoder(torch.randn(2, 8))
    assert rebuilt.shape == (2, 3, height, width)
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1


def test_a_decoder_learns_two_crops_by_heart() -> None:
    torch.manual_seed(0)
    decoder = Decoder(4, 16, 16, channels=4)
    emb = torch.eye(4)[:2]
    crops = torch.zeros(2, 3, 16, 16)
    crops[0, 0, :, :8] = 0.9
    crops[1, 2, 8:] = 0.9
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        loss = (decoder(emb) - crops).square().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.02 < crops.var().item()


@pytest.mark.parametrize(
    ("name", "arguments"), [("dimension", (0, 80, 80)), ("height", (8, 15, 80)), ("width", (8, 80, 15))]
)
def test_arguments_out_of_range_are_refused(name: str, arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{name}: got (0|15), wanted at least"):
        Decoder(*arguments)
