"""Prove an index before it is published: recall, under a filter too, latency and throughput, on queries that are not in it.

Q queries, K answers a query, N nearest known, D dimensions.
"""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import GateRefusedError
from store.index_choice import RECALL_GATE
from store.index_filter import allow
from store.index_search import NOBODY, SearchSettings, indexed_ids, search
from tasks.steps.face_blocks import FaceBlocks, sample_rows
from tasks.steps.held_out_truth import HeldOut, let_through
from tasks.steps.measure_index import Questions, latency_of, recall_of

__all__ = ["noisy_queries", "pass_gate", "prove_approximate", "prove_exact"]

_NOISY = 64
_SOME = 32  # queries by which is measured what the gate does not decide by, and what takes long
_ONE_BY_ONE = 128  # queries that are timed
_EXACT_S = 0.3
_SEED = 20_180_402


def noisy_queries(faces: FaceBlocks) -> npt.NDArray[np.float32]:
    """Some stored vectors moved by noise, so that none is in the index as it stands: float32, (Q, D), unit length."""
    vectors_QD = faces.take(sample_rows(len(faces.ids), _NOISY, seed=_SEED))
    count, dimension = vectors_QD.shape
    rng = np.random.default_rng(_SEED)
    noise = rng.standard_normal((count, dimension)).astype(np.float32) * (0.5 / np.sqrt(dimension))
    queries_QD: npt.NDArray[np.float32] = vectors_QD + noise
    queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
    return queries_QD


def prove_exact(index: Any, faces: FaceBlocks, *, device: str = "cpu") -> dict[str, Any]:
    """The metrics of an exact index: it proves that every vector stands under its own face, in little time.

    Args:
        index: as opened.
        faces: that it should hold, at least one.
        device: as of `index_device`.
    """
    asked = Questions.of(noisy_queries(faces), faces, device=device)
    took = latency_of(index, asked.queries, SearchSettings(), seconds=_EXACT_S)
    return {
        "recall_at_10": recall_of(index, asked, SearchSettings(), ks=(10,))[10],
        "queries": len(asked.queries),
        "queries_from": "stored vectors moved by noise",
        **took.as_json(),
    }


def prove_approximate(index: Any, held: HeldOut, settings: SearchSettings) -> dict[str, Any]:
    """The metrics of an approximate index.

    Args:
        index: as opened.
        held: queries others than it was tuned with, and their exact nearest among the faces that it should hold.
        settings: as the manifest names them.
    """
    asked = held.questions()
    start = time.perf_counter()
    cosines_QK, found_QK = search(index, asked.queries, k=10, settings=settings)
    a_second = len(found_QK) / (time.perf_counter() - start)
    took = latency_of(index, asked.queries[:_ONE_BY_ONE], settings)
    some = held.only(np.arange(len(held.faces)) % -(-len(held.faces) // _SOME) == 0)
    return {
        "recall_at_1": float(
            asked.recalls(found_QK[:, :1], k=1).mean()
        ),  # nearly as many are compared for one as for ten
        "recall_at_10": float(asked.recalls(found_QK, k=10).mean()),
        "recall_at_100": recall_of(index, some.questions(), settings, ks=(100,))[100],
        "recall_at_10_filtered": {
            str(share): _filtered(index, some, settings, share) for share in held.near if share < 1
        },
        "queries_at_100_and_filtered": len(some.faces),
        "cosine_error": _cosine_error(cosines_QK, found_QK, asked),
        "queries": len(asked.queries),
        "queries_from": "stored crops changed and embedded again",
        **took.as_json(),
        "queries_per_s": round(a_second, 1),  # all at once, on all cores
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


def _filtered(index: Any, held: HeldOut, settings: SearchSettings, share: float) -> float:
    """Recall@10 where a filter lets a share of the faces through."""
    ids_N = indexed_ids(index)
    allowed = allow(index, ids_N[let_through(ids_N, share)])
    return recall_of(index, held.questions(share), settings, ks=(10,), allowed=allowed)[10]


def _cosine_error(cosines_QK: npt.NDArray[np.float32], found_QK: npt.NDArray[np.int64], asked: Questions) -> float:
    """By how much the cosines of an answer are off at most, because codes are compared."""
    same_QKN = (found_QK[:, :, None] == asked.near.ids[:, None, :]) & (found_QK != NOBODY)[:, :, None]
    said, true = (np.where(same_QKN, one, 0) for one in (cosines_QK[:, :, None], asked.near.cosines[:, None, :]))
    return round(float(np.abs(said - true).max(initial=0.0)), 5)
