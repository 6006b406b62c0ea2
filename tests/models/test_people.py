import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import people as people_module
from models.metrics import precision_at_1
from models.people import PeopleCrops, embed_people, measure_people, select_people, training_input
from models.preprocess import preprocess_faces

RNG = np.random.default_rng(0)
CROPS = RNG.integers(0, 256, (9, 8, 16, 3), dtype=np.uint8)
LABELS = ["cy", "ada", "bo", "ada", "cy", "ada", "dan", "bo", "eve"]


class MeanColour(nn.Module):
    """A network whose embedding is the mean colour of the preprocessed face."""

    def forward(self, inputs_NCHW: Tensor) -> Tensor:
        return nn.functional.normalize(inputs_NCHW.mean(dim=(2, 3)), dim=1)


def test_only_the_people_asked_for_are_selected_and_keep_their_crops() -> None:
    chosen = select_people(CROPS, LABELS, {"cy", "ada"})
    assert chosen.labels.tolist() == [1, 0, 0, 1, 0]
    np.testing.assert_array_equal(chosen.crops, CROPS[[0, 1, 3, 4, 5]])


def test_faces_are_embedded_as_an_encoder_preprocesses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "CHUNK_FACES", 4)
    chosen = select_people(CROPS.repeat(2, axis=1), LABELS, set(LABELS))
    inputs = torch.from_numpy(preprocess_faces(chosen.crops, training_input(16, 16)))
    np.testing.assert_allclose(embed_people(MeanColour(), chosen, device="cpu"), MeanColour()(inputs), atol=1e-6)


def test_metrics_are_those_of_the_embeddings_and_do_not_change_between_calls() -> None:
    chosen = select_people(CROPS.repeat(2, axis=1), LABELS, set(LABELS))
    metrics, loss = measure_people(MeanColour(), chosen, margin=1.0, device="cpu")
    emb = embed_people(MeanColour(), chosen, device="cpu")
    assert metrics.precision_at_1 == precision_at_1(emb, chosen.labels)
    assert (metrics, loss) == measure_people(MeanColour(), chosen, margin=1.0, device="cpu")
    alike = [(i, j) for i in range(9) for j in range(9) if i != j and LABELS[i] == LABELS[j]]
    assert 0 < metrics.verification_accuracy <= 1
    assert 0 < loss < max(float(np.sum((emb[i] - emb[j]) ** 2)) for i, j in alike) / 2 + 0.5


def test_people_that_a_network_tells_apart_score_fully() -> None:
    crops = np.zeros((4, 16, 16, 3), np.uint8)
    crops[:2, ..., 0] = 255
    crops[2:, ..., 1] = 255
    metrics, loss = measure_people(MeanColour(), PeopleCrops(crops, np.array([0, 0, 1, 1])), margin=0.5, device="cpu")
    assert (metrics.precision_at_1, metrics.verification_accuracy, loss) == (1, 1, pytest.approx(0, abs=1e-9))


def test_measuring_leaves_no_gradient_behind() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    embed_people(network, select_people(CROPS.repeat(2, axis=1), LABELS, set(LABELS)), device="cpu")
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not torch.is_inference(network[0].weight)
