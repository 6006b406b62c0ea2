"""What was measured of an index as small pictures: recall by latency of every setting that was tried, and how long queries took.

Drawn from numbers, as SVG, like the calibration's pictures. Latency runs along x, by powers of ten.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from store.index_choice import RECALL_GATE
from store.manifest import Manifest
from tasks.steps.pages import render

__all__ = ["latency_svg", "recall_svg"]

_WIDTH, _HEIGHT = 430, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 22, 14, 40
_KEYS = 200  # from the right, where settings would be slow and wrong: the emptiest corner
_STYLES = (
    ("var(--mark)", ""), ("var(--same)", "7 3"), ("var(--ink)", "2 3"), ("var(--soft)", "9 3 2 3"), ("var(--more)", "1 4"),
)  # fmt: skip
_LEAST_RANGE = 0.1  # of recall, so that points near one another are told apart and noise is not blown up

Curve = tuple[str, list[list[tuple[float, float]]]]  # a name, and stretches of points that are joined


def recall_svg(manifest: Manifest) -> str | None:
    """A line a kind of index that was measured, through recall@10 and latency of each setting; the red line is the gate.

    None where only exact search was considered.
    """
    curves = [
        (f"{one['kind']}, {one['faces']:,} faces", _ways(one["points"]))
        for one in manifest.index.measured
        if one.get("points")
    ]
    if not curves:
        return None
    lowest = min(*(y for _, ways in curves for way in ways for _, y in way), RECALL_GATE, 1 - _LEAST_RANGE)
    lowest = math.floor(lowest * 10) / 10
    return _svg(curves, label="recall by latency", y_title="recall@10", lowest=lowest, level=RECALL_GATE)


def latency_svg(manifest: Manifest) -> str | None:
    """The share of the gate's queries that were answered within a time; None where none was asked."""
    quantiles = (manifest.metrics or {}).get("latency_quantiles_ms")
    if not quantiles:
        return None
    curve = (manifest.index.parameters.get("kind", "exact"), [[(ms, share) for share, ms in quantiles]])
    return _svg([curve], label="latency", y_title="share of the queries", lowest=0.0)


def _ways(points: Sequence[dict[str, Any]]) -> list[list[tuple[float, float]]]:
    """Latency and recall of settings by rising effort; another way of asking begins where fewer lists are looked into again."""
    ways: list[list[tuple[float, float]]] = []
    before = math.inf
    for point in points:
        if (probes := point.get("nprobe", 0)) < before and (not ways or "nprobe" in point):
            ways.append([])
        ways[-1].append((point["p50_ms"], point["recall_at_10"]))
        before = probes
    return ways


def _svg(
    curves: Sequence[Curve],
    *,
    label: str,
    y_title: str,
    lowest: float,
    level: float | None = None,
) -> str:
    low, high = _decades(x for _, ways in curves for way in ways for x, _ in way)

    def at(x: float, y: float) -> tuple[float, float]:
        return (math.log10(max(x, 1e-4)) - low) / (high - low), (y - lowest) / (1 - lowest)

    lines, keys, dots = [], [], []
    for n, (name, ways) in enumerate(curves):
        colour, dashes = _STYLES[n % len(_STYLES)]
        keys.append({"name": name, "colour": colour, "dashes": dashes})
        for way in ways:
            placed = [at(x, y) for x, y in way]
            lines.append(_line(placed, colour, dashes))
            dots += [{"x": _x(x), "y": _y(y), "r": 2.5, "colour": colour} for x, y in placed] if level else []
    if level is not None:
        lines.append(_line([(0, at(1, level)[1]), (1, at(1, level)[1])], "var(--other)", "4 3"))
    first = _HEIGHT - _BOTTOM - 8 - 16 * (len(keys) - 1)
    return render(
        "plot.svg.j2",
        label=label,
        x_title="milliseconds a query, one core",
        y_title=y_title,
        x_ticks=[(_x((n - low) / (high - low)), f"{10.0**n:g}") for n in range(low, high + 1)],
        y_ticks=[(_y(share), f"{lowest + share * (1 - lowest):.3g}") for share in (0, 0.5, 1)],
        size=(_WIDTH, _HEIGHT),
        frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        dots=dots,
        lines=lines,
        keys=[key | {"y": first + 16 * n, "x": _WIDTH - _RIGHT - _KEYS} for n, key in enumerate(keys)]
        if len(keys) > 1
        else [],
    ).decode()


def _decades(values: Iterable[float]) -> tuple[int, int]:
    """Whole powers of ten around some values."""
    logs = [math.log10(max(value, 1e-4)) for value in values]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> dict[str, Any]:
    return {"points": " ".join(f"{_x(x)},{_y(y)}" for x, y in points), "colour": colour, "dashes": dashes}


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 2)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM), 2)
