"""How well embeddings tell people apart: retrieval and verification.

N faces or pairs, D dimensions of an embedding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Threshold", "best_threshold", "precision_at_1", "verification_accuracy"]

CHUNK_FACES = 2048


class Threshold(NamedTuple):
    """Pairs that score at least `threshold` are called one person; `accuracy`, in [0, 1], is how often that is right."""

    threshold: float
    accuracy: float


def precision_at_1(emb_ND: NDArray[np.floating[Any]], labels_N: Sequence[Any] | NDArray[Any]) -> float:
    """How often the nearest of all other faces, by cosine, is of the same person.

    Asked are the faces whose person has another one; people with a single face stand among the answers only.

    Args:
        emb_ND: floating, (N, D), of any length but zero.
        labels_N: the person of each face, integers or strings.

    Returns:
        The share of right answers, in [0, 1]; of equally near faces the first counts.

    Raises:
        ValueError: shapes that do not agree, or no person with two faces; the message says which.
    """
    labels = np.asarray(labels_N)
    if emb_ND.ndim != 2 or labels.shape != emb_ND.shape[:1]:
        raise ValueError(f"faces: got embeddings {emb_ND.shape} and labels {labels.shape}, wanted (N, D) and (N,)")
    _, person_N, photos = np.unique(labels, return_inverse=True, return_counts=True)
    asked = np.flatnonzero(photos[person_N] >= 2) if len(labels) else np.empty(0, np.int64)
    if not asked.size:
        raise ValueError(f"faces: got {len(labels)} of {len(photos)} people, wanted a person with at least two")
    unit_ND = emb_ND / np.linalg.norm(emb_ND, axis=1, keepdims=True)
    right = 0
    for start in range(0, len(asked), CHUNK_FACES):
        queries = asked[start : start + CHUNK_FACES]
        cosines = unit_ND[queries] @ unit_ND.T
        cosines[np.arange(len(queries)), queries] = -np.inf
        right += int((person_N[cosines.argmax(axis=1)] == person_N[queries]).sum())
    return right / len(asked)


def best_threshold(scores_N: ArrayLike, same_N: ArrayLike) -> Threshold:
    """The threshold that tells pairs of one person from pairs of two most often.

    Args:
        scores_N: floating, (N,), higher for pairs more alike, such as cosines.
        same_N: bool, (N,), whether a pair is one person.

    Returns:
        Half-way between the two scores it separates; infinite where all pairs are best called alike or unlike.

    Raises:
        ValueError: no pairs, shapes that do not agree or a score that is not a number; the message says which.
    """
    scores, same = np.asarray(scores_N, np.float64), np.asarray(same_N, bool)
    if scores.ndim != 1 or scores.shape != same.shape or not scores.size or np.isnan(scores).any():
        raise ValueError(
            f"pairs: got scores {scores.shape} and same {same.shape}, wanted two (N,), N >= 1, without NaN"
        )
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    # right[k]: the k highest are called one person
    right = np.concatenate([[0], np.cumsum(same)]) + (~same).sum() - np.concatenate([[0], np.cumsum(~same)])
    edges = np.concatenate([[np.inf], scores, [-np.inf]])
    allowed = edges[:-1] > edges[1:]
    best = int(np.argmax(np.where(allowed, right, -1)))
    upper, lower = edges[best], edges[best + 1]
    between = (upper + lower) / 2 if np.isfinite(upper) and np.isfinite(lower) else (np.inf if best == 0 else -np.inf)
    return Threshold(float(between), float(right[best] / len(scores)))


def verification_accuracy(scores_N: ArrayLike, same_N: ArrayLike) -> float:
    """The accuracy, in [0, 1], at the best threshold; arguments and errors as for `best_threshold`."""
    return best_threshold(scores_N, same_N).accuracy
