"""Held-out queries for stores whose embeddings are drawn: there are no crops in them that could be changed and embedded again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pyarrow as pa

from benchmarks.face_vectors import FaceVectors
from tasks.steps.held_out_queries import HELD_OUT, HeldOutQueries

__all__ = ["drawn_queries"]


@contextmanager
def drawn_queries(drawn: FaceVectors) -> Iterator[None]:
    """In this block an index is tuned and asked at the gate with other photos of the drawn people."""
    asked_QD = drawn.queries(2 * HELD_OUT)

    def held_out(storage: Any, faces: pa.Table, *, purpose: str, **_: Any) -> HeldOutQueries:
        half = slice(None, HELD_OUT) if purpose == "tune" else slice(HELD_OUT, None)
        return HeldOutQueries(faces["face_id"][: 2 * HELD_OUT].to_numpy()[half], asked_QD[half])

    with (
        mock.patch("tasks.steps.write_index.held_out_queries", held_out),
        mock.patch("tasks.steps.check_version.held_out_queries", held_out),
    ):
        yield
