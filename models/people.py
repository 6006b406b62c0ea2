"""A group of people's crops, and what an encoder does on them.

N faces, H rows, W columns, D dimensions of an embedding.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.card import InputSpec
from models.contrastive import ContrastiveLoss
from models.metrics import best_threshold, precision_at_1
from models.pairs import sample_pairs
from models.preprocess import normalise_pixels

__all__ = ["PeopleCrops", "PeopleMetrics", "embed_people", "measure_people", "select_people", "training_input"]

CHUNK_FACES = 128
MEASURED_PAIRS = 2048
GPU_SHARE = 0.2
"""Of a GPU's free memory, at most, for the crops that a training keeps there."""


@dataclass(frozen=True)
class PeopleCrops:
    """Crops, uint8 (N, H, W, 3), RGB, and their people, int64 (N,)."""

    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def pixels(self, rows: NDArray[np.int64] | slice, device: str) -> Tensor:
        """Some of the crops as float32 (n, 3, H, W), in [0, 255], channels last in memory."""
        return torch.from_numpy(self.crops[rows]).to(device).float().permute(0, 3, 1, 2)

    def reader(self, device: str) -> Callable[[NDArray[np.int64]], Tensor]:
        """`pixels` of rows on one device, to be asked many times: a GPU with room for all crops takes them in once, as bytes."""
        if device == "cpu" or self.crops.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            return lambda rows: self.pixels(rows, device)
        kept_NHWC = torch.from_numpy(self.crops).to(device)
        return lambda rows: kept_NHWC[torch.from_numpy(rows).to(device)].float().permute(0, 3, 1, 2)


@dataclass(frozen=True)
class PeopleMetrics:
    """What an encoder does on a group of people: precision_at_1 and verification_accuracy, both in [0, 1]."""

    precision_at_1: float
    verification_accuracy: float


def training_input(height: int, width: int) -> InputSpec:
    """The input of every encoder trained here from scratch, (pixel - 127.5) / 128 as the published networks': for its card."""
    return InputSpec(
        height=height, width=width, colour="rgb", scale=1.0, mean=(127.5, 127.5, 127.5), std=(128.0, 128.0, 128.0)
    )


def select_people(crops_NHWC: NDArray[np.uint8], labels: Sequence[str], people: Collection[str]) -> PeopleCrops:
    """The crops of `people` only, people numbered in the order of their names."""
    number = {person: index for index, person in enumerate(sorted(people))}
    rows = np.array([row for row, label in enumerate(labels) if label in number], np.int64)
    return PeopleCrops(crops_NHWC[rows], np.array([number[labels[row]] for row in rows], np.int64))


@torch.inference_mode()
def embed_people(
    network: nn.Module, people: PeopleCrops, *, device: str, spec: InputSpec | None = None
) -> NDArray[np.float32]:
    """Everybody's embeddings, float32 (N, D); the network is left in evaluation mode.

    Args:
        network: of preprocessed faces to embeddings.
        people: whose faces to embed.
        device: where the network is.
        spec: its input; None is `training_input` at the crops' size.
    """
    network.eval()
    spec = spec or training_input(*people.crops.shape[1:3])
    starts = range(0, len(people.crops), CHUNK_FACES)
    chunks = (people.pixels(slice(start, start + CHUNK_FACES), device) for start in starts)
    return np.concatenate(
        [network(normalise_pixels(pixels_NCHW, spec)).float().cpu().numpy() for pixels_NCHW in chunks]
    )


def measure_people(
    network: nn.Module, people: PeopleCrops, *, margin: float, device: str, spec: InputSpec | None = None
) -> tuple[PeopleMetrics, float]:
    """Metrics, and the mean contrastive loss of balanced pairs that are the same at every call; see `embed_people`.

    Raises:
        ValueError: fewer than two people, or nobody with two photos.
    """
    emb_ND = embed_people(network, people, device=device, spec=spec)
    pairs = sample_pairs(people.labels, pairs=MEASURED_PAIRS, generator=np.random.default_rng(0))
    left_PD, right_PD, same_P = emb_ND[pairs.left], emb_ND[pairs.right], pairs.same
    loss = ContrastiveLoss(margin)(*map(torch.from_numpy, (left_PD, right_PD, same_P)))
    accuracy = best_threshold((left_PD * right_PD).sum(axis=1), same_P).accuracy
    return PeopleMetrics(precision_at_1(emb_ND, people.labels), accuracy), float(loss)
