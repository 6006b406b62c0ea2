"""What the service counts, for Prometheus."""

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    multiprocess,
)

__all__ = ["MULTIPROCESS_VARIABLE", "Metrics"]

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""A folder in which several processes of one service leave their counts."""

_STAGE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts of one process, read with those of its siblings."""

    def __init__(self) -> None:
        self._own = registry = CollectorRegistry()
        self.requests = Counter(
            "lookalike_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "lookalike_request_seconds",
            "From the first line to the last byte.",
            ["route"],
            buckets=_STAGE_S,
            registry=registry,
        )
        self.stages = Histogram(
            "lookalike_stage_seconds", "Parts of a query.", ["stage"], buckets=_STAGE_S, registry=registry
        )
        self.queries = Counter("lookalike_queries", "Queries by what came of them.", ["outcome"], registry=registry)
        self.inside = Gauge(
            "lookalike_queries_inside", "Queries at work or waiting.", registry=registry, multiprocess_mode="livesum"
        )
        self.version = Gauge(
            "lookalike_version", "The version that answers.", registry=registry, multiprocess_mode="min"
        )
        self.faces = Gauge("lookalike_faces", "Faces in it.", registry=registry, multiprocess_mode="min")
        if MULTIPROCESS_VARIABLE not in os.environ:
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)

    def text(self) -> bytes:
        """All counts, in Prometheus's format."""
        if MULTIPROCESS_VARIABLE not in os.environ:
            return generate_latest(self._own)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
