import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from models.margin_softmax import MarginSoftmax


def faces(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    emb = torch.nn.functional.normalize(torch.randn(12, 6, generator=generator), dim=1)
    return emb, torch.randint(0, 5, (12,), generator=generator)


def by_loops(head: MarginSoftmax, emb: Tensor, labels: Tensor) -> float:
    """Equation 4 of the paper, a face and a person at a time."""
    total = 0.0
    for face, person in zip(emb, labels.tolist(), strict=True):
        cosines = [float(face @ d / d.norm()) for d in head.directions.detach()]
        right = math.exp(head.scale * (cosines[person] - head.margin))
        wrong = sum(math.exp(head.scale * c) for other, c in enumerate(cosines) if other != person)
        total -= math.log(right / (right + wrong))
    return total / len(emb)


@pytest.mark.parametrize("margin", [0.0, 0.35])
@pytest.mark.parametrize("scale", [1.0, 16.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_papers_face_by_face(margin: float, scale: float, seed: int) -> None:
    head = MarginSoftmax(6, 5, margin=margin, scale=scale, seed=seed)
    with torch.no_grad():
        head.directions *= torch.arange(1, 6)[:, None]  # their lengths must not matter
    emb, labels = faces(seed)
    assert head(emb, labels).item() == pytest.approx(by_loops(head, emb, labels), rel=1e-4)


def test_a_margin_makes_the_same_faces_cost_more() -> None:
    emb, labels = faces(0)
    assert MarginSoftmax(6, 5, margin=0.35)(emb, labels) > MarginSoftmax(6, 5, margin=0)(emb, labels)


def test_first_directions_follow_from_the_seed_alone_and_have_length_one() -> None:
    first = MarginSoftmax(6, 5, seed=3).directions
    torch.rand(5)
    assert torch.equal(first, MarginSoftmax(6, 5, seed=3).directions)
    assert not torch.equal(first, MarginSoftmax(6, 5, seed=4).directions)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"people": 1}, "people: got 1, wanted at least 2"),
        ({"margin": 1.0}, r"class margin: got 1.0, wanted a cosine in [0, 1)"),
        ({"margin": -0.1}, "class margin: got -0.1"),
        ({"scale": 0.0}, "class scale: got 0.0"),
        ({"scale": math.inf}, "class scale: got inf"),
    ],
)
def test_values_out_of_range_are_named(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        MarginSoftmax(**{"dimension": 6, "people": 5, **wrong})


def test_embeddings_of_another_dimension_are_refused() -> None:
    emb, labels = faces(0)
    with pytest.raises(ValueError, match=r"got embeddings \(12, 5\) and labels \(12,\), wanted \(N, 6\)"):
        MarginSoftmax(6, 5)(emb[:, 1:], labels)
