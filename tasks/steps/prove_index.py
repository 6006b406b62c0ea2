"""Prove an index before it is published: recall, under a filter too, latency and throughput, on queries that are not in it.

Q queries, D dimensions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import GateRefusedError
from store.index_choice import RECALL_GATE
from store.index_search import NOBODY, SearchSettings, allow, search
from tasks.steps.measure_index import Gallery, Questions, latency_of, queries_a_second, recall_of

__all__ = ["noisy_queries", "pass_gate", "prove_approximate", "prove_exact"]

_NOISY = 64
_EXACT_S = 0.3
_FILTERED = (0.1, 0.01)  # shares of the faces that filters let through
_SEED = 20_180_402


def noisy_queries(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Stored vectors moved by noise, so that none is in the index as it stands: float32, (Q, D), unit length."""
    total, dimension = vectors_ND.shape
    rng = np.random.default_rng(_SEED)
    picked = rng.choice(total, size=min(_NOISY, total), replace=False)
    noise = rng.standard_normal((len(picked), dimension)).astype(np.float32) * (0.5 / np.sqrt(dimension))
    queries_QD: npt.NDArray[np.float32] = vectors_ND[picked] + noise
    queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
    return queries_QD


def prove_exact(index: Any, gallery: Gallery) -> dict[str, Any]:
    """The metrics of an exact index: it proves that every vector stands under its own face, in little time.

    Args:
        index: as opened.
        gallery: the faces and vectors that it should hold, at least one.
    """
    queries_QD = noisy_queries(gallery.vectors)
    asked = Questions.of(queries_QD, gallery, depth=10)
    took = latency_of(index, queries_QD, SearchSettings(), seconds=_EXACT_S)
    return {
        "recall_at_10": recall_of(index, asked, SearchSettings(), ks=(10,))[10],
        "queries": len(queries_QD),
        "queries_from": "stored vectors moved by noise",
        **took.as_json(),
    }


def prove_approximate(
    index: Any, gallery: Gallery, settings: SearchSettings, queries_QD: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """The metrics of an approximate index.

    Args:
        index: as opened.
        gallery: the faces and vectors that it should hold.
        settings: as the manifest names them.
        queries_QD: held-out queries, others than it was tuned with.
    """
    asked = Questions.of(queries_QD, gallery)
    found = recall_of(index, asked, settings)
    took = latency_of(index, queries_QD, settings)
    return {
        **{f"recall_at_{k}": recall for k, recall in found.items()},
        "recall_at_10_filtered": {
            str(share): _filtered(index, gallery, settings, queries_QD, share) for share in _FILTERED
        },
        "cosine_error": _cosine_error(index, asked, settings),
        "queries": len(queries_QD),
        "queries_from": "stored crops changed and embedded again",
        **took.as_json(),
        "queries_per_s": round(queries_a_second(index, queries_QD, settings), 1),
    }


def pass_gate(metrics: dict[str, Any], *, key: str) -> dict[str, Any]:
    """What the manifest says of the gate.

    Args:
        metrics: of the index; recall_at_10 is None where it is empty.
        key: what the index is.

    Raises:
        GateRefusedError: recall@10 is below the gate; the message has both figures.
    """
    recall = metrics["recall_at_10"]
    if recall is not None and recall < RECALL_GATE:
        raise GateRefusedError(
            f"the gate refused the version: recall@10 is {recall:.3f}, wanted at least {RECALL_GATE}; the old version stays. "
            f"The index is {key}, asked {metrics['queries']} queries ({metrics['queries_from']})",
            recall_at_10=recall,
            key=key,
        )
    return {"recall_at_10": RECALL_GATE, "passed": True}


def _filtered(
    index: Any, gallery: Gallery, settings: SearchSettings, queries_QD: npt.NDArray[np.float32], share: float
) -> float:
    """Recall@10 where a filter lets a share of the faces through."""
    chosen = np.sort(
        np.random.default_rng(_SEED).permutation(len(gallery.ids))[: max(1, int(share * len(gallery.ids)))]
    )
    there = Gallery(gallery.ids[chosen], gallery.vectors[chosen])
    asked = Questions.of(queries_QD, there, depth=10)
    return recall_of(index, asked, settings, ks=(10,), allowed=allow(index, there.ids))[10]


def _cosine_error(index: Any, asked: Questions, settings: SearchSettings) -> float:
    """By how much the ten cosines of an answer are off at most, because codes are compared."""
    cosines_QK, found_QK = search(index, asked.queries, k=10, settings=settings)
    rows_QK = np.minimum(np.searchsorted(asked.gallery.ids, found_QK), len(asked.gallery.ids) - 1)
    true_QK = np.einsum("qd,qkd->qk", asked.queries, asked.gallery.vectors[rows_QK], optimize=True)
    return round(float(np.abs(cosines_QK - true_QK)[found_QK != NOBODY].max(initial=0.0)), 5)
