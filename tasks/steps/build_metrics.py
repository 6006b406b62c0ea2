"""A build's figures for Prometheus, as files that node_exporter's textfile collector reads.

A build is a batch job: it is gone before anybody could scrape it. So the figures of the last build stay behind in a folder,
a file a store, put in place in one step; another file holds when a build last failed.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from store.layout import short_name
from store.storage import normalise_uri

__all__ = ["FOLDER_VARIABLE", "metrics_of_build"]

FOLDER_VARIABLE = "LOOKALIKE_METRICS"
"""Names the folder; without it nothing is written."""


@contextlib.contextmanager
def metrics_of_build(store: str) -> Iterator[list[dict[str, Any]]]:
    """Write the figures of the build in this block when it is over.

    Yields:
        A list for the build's summary, as `summarise_build` gives it.
    """
    summaries: list[dict[str, Any]] = []
    folder = os.environ.get(FOLDER_VARIABLE)
    uri = normalise_uri(store)
    try:
        yield summaries
    except Exception:
        if folder:
            _write(folder, f"lookalike_failure_{short_name(uri)}", _failure(uri))
        raise
    if folder and summaries:
        _write(folder, f"lookalike_build_{short_name(uri)}", _success(uri, summaries[-1]))


def _success(store: str, summary: dict[str, Any]) -> CollectorRegistry:
    registry = CollectorRegistry()

    def gauge(name: str, help_text: str, values: dict[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> None:
        made = Gauge(f"lookalike_{name}", help_text, ("store", *labels), registry=registry)
        for key, value in values.items():
            made.labels(store, *key).set(value)

    seconds, new, index = summary["seconds"], summary["new"], summary["index"] or {"bytes": 0}
    gauge("build_last_success_timestamp_seconds", "When a build last ended well.", {(): time.time()})
    gauge("build_stage_seconds", "Seconds by stage.", {(stage,): s for stage, s in seconds.items()}, ("stage",))
    gauge(
        "build_published",
        "1 when the last build published a version, 0 when nothing was new.",
        {(): summary["published"]},
    )
    gauge("build_new_photos", "Photos that the last build computed.", {(): new["photos"]})
    gauge("build_rejected_photos", "Photos of these that could not be used.", {(): new["rejected"]})
    gauge("version", "Number of the current version.", {(): summary["version"] or 0})
    gauge("faces", "Faces in the current version.", {(): summary["faces"]})
    gauge("photos", "Photos in the current version.", {(s,): n for s, n in summary["photos"].items()}, ("status",))
    gauge("index_bytes", "Bytes of the current version's index.", {(): index["bytes"]})
    if (recall := index.get("recall_at_10")) is not None:
        gauge("index_recall_at_10", "Recall@10 that the gate found, from 0 to 1.", {(): recall})
    return registry


def _failure(store: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    gauge = Gauge(
        "lookalike_build_last_failure_timestamp_seconds", "When a build last failed.", ("store",), registry=registry
    )
    gauge.labels(store).set(time.time())
    return registry


def _write(folder: str, name: str, registry: CollectorRegistry) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(Path(folder) / f"{name}.prom"), registry)
