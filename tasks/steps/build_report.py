"""What a build says of itself to an operator: its name, a table and its index's card."""

from typing import Any

from tasks.steps.plan_build import PlanCounts

__all__ = ["REJECTS_ALERT", "build_table", "index_card", "run_name"]

REJECTS_ALERT = 0.05
"""Share of a build's new photos that may be rejected before somebody is told."""


def run_name(source: str, counts: PlanCounts) -> str:
    """`build s3://archive +1,204 photos`, and what changed and went where anything did."""
    came = [f"{sign}{n:,}" for sign, n in (("+", counts.added), ("~", counts.changed), ("-", counts.removed)) if n]
    return f"build {source} {' '.join(came)} photos" if came else f"build {source}, nothing new"


def build_table(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Rows for a table: photos by status, rejects by reason, shards, seconds by stage, and photos a second.

    A value stands before what it counts: a reason may be so long that what comes after it is off the page.

    Args:
        summary: as `summarise_build` gives it.
    """
    new, seconds = summary["new"], summary["seconds"]
    speed = f"{new['photos'] / seconds['total']:,.1f}" if new["photos"] and seconds.get("total") else "nothing computed"
    groups: list[tuple[str, dict[str, str]]] = [
        ("version", {"published" if summary["published"] else "nothing new, stays": str(summary["version"])}),
        ("source", {kind: f"{n:,}" for kind, n in summary["plan"].items() if n}),
        ("photos", {status: f"{n:,}" for status, n in summary["photos"].items()} | {"seen": f"{summary['seen']:,}"}),
        ("rejects", {f"{one['status']}: {one['reason']}": f"{one['photos']:,}" for one in summary["rejects"]}),
        ("new photos", {"looked at": f"{new['photos']:,}", "rejected": f"{new['rejected']:,}"}),
        ("shards", {kind: f"{n:,}" for kind, n in summary["shards"].items()}),
        ("seconds", {stage: f"{s:,.1f}" for stage, s in seconds.items()}),
        ("speed", {"new photos a second": speed}),
    ]
    return [{"about": about, "value": value, "what": what} for about, rows in groups for what, value in rows.items()]


def index_card(summary: dict[str, Any]) -> str:
    """Markdown: which index was chosen and why, what it was allowed, how right and quick it is, and whether the gate took it."""
    rows = {
        "version": summary["version"],
        "faces": f"{summary['faces']:,}",
        **summary["index"]["rows"],
        "encoder": f"`{summary['encoder']}`",
    }
    lines = [f"| {name} | {str(value).replace('|', '&#124;')} |" for name, value in rows.items()]
    return "\n".join(["| the index | |", "| --- | --- |", *lines])
