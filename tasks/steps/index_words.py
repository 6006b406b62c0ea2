"""What a manifest says of its index, in words, for the report, the card in Prefect and the command."""

from typing import Any

from store.index_choice import in_words
from store.manifest import ChangesRecord, Manifest
from store.version_files import ADDED_INDEX

__all__ = ["index_rows"]


def index_rows(manifest: Manifest) -> dict[str, str]:
    """A line each: kind, why, budget, recall, recall under a filter, latency, gate, size, how it came to be."""
    index, metrics, gate = manifest.index, manifest.metrics or {}, manifest.gate
    settings = ", ".join(f"{name} {value:g}" for name, value in index.parameters.items() if name != "kind")
    rows = {
        "kind": f"{index.key}{f', searched with {settings}' if settings else ''}; {index.metric.replace('_', ' ')}, "
        f"{manifest.encoder.dimension} dimensions",
        "why": index.why,
        "budget": _budget(index.budget),
        "recall": _recall(metrics),
        "recall@10 under a filter": _filtered(metrics.get("recall_at_10_filtered")),
        "latency": _latency(metrics),
        "cosines": f"off by at most {metrics['cosine_error']:g}, because codes are compared"
        if "cosine_error" in metrics
        else "",
        "gate": f"passed: recall@10 of at least {gate['recall_at_10']} was asked for"
        if gate and gate.get("passed")
        else "",
        "size": _size(manifest),
        "made by": index.change,
        "kept as": _kept(manifest.changes),
    }
    return {name: said for name, said in rows.items() if said}


def _size(manifest: Manifest) -> str:
    files, index = manifest.files, manifest.index
    if manifest.changes is None:
        return f"{index.bytes:,} bytes"
    return f"{index.bytes:,} bytes, and {files[ADDED_INDEX].bytes:,} of what was added"


def _kept(changes: ChangesRecord | None) -> str:
    if changes is None:
        return ""
    return (
        f"changes to version {changes.base}: {changes.vectors_added:,} faces were added to its index, "
        f"{changes.vectors_left:,} in it count no more"
    )


def _budget(budget: dict[str, Any] | None) -> str:
    if budget is None:
        return ""
    return f"{in_words(budget['memory_bytes'])}, {budget['latency_ms']:g} ms a query, recall@10 of {budget['recall']:g}"


def _recall(metrics: dict[str, Any]) -> str:
    if metrics.get("recall_at_10") is None:
        return "not measured: the index is empty"
    found = ", ".join(f"@{k} {metrics[f'recall_at_{k}']:.3f}" for k in (1, 10, 100) if f"recall_at_{k}" in metrics)
    asked = f", {metrics['queries']} queries: {metrics['queries_from']}" if "queries" in metrics else ""
    return f"{found}, against a plain matrix product{asked}"


def _filtered(shares: dict[str, float] | None) -> str:
    return ", ".join(
        f"{recall:.3f} where {float(share):.0%} of the faces may be found" for share, recall in (shares or {}).items()
    )


def _latency(metrics: dict[str, Any]) -> str:
    if "p50_ms" not in metrics:
        return ""
    at_once = f"; {metrics['queries_per_s']:,.0f} queries a second at once" if "queries_per_s" in metrics else ""
    return f"half of the queries within {metrics['p50_ms']:.3g} ms on one core, 99 of 100 within {metrics['p99_ms']:.3g} ms{at_once}"
