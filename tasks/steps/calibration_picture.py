"""A calibration as two small pictures: what was said against what was so, and what a cosine means in galleries of several sizes.

Written by hand as SVG, so that a build need not import a plotting library. Colours are the page's; `standalone` fixes them.
"""

from collections.abc import Sequence

import numpy as np

from models.same_person import Calibration
from tasks.steps.pages import render

__all__ = ["GALLERIES", "probability_svg", "reliability_svg", "standalone"]

GALLERIES = (1_000, 1_000_000)
"""Sizes that stand beside the version's own."""

_WIDTH, _HEIGHT = 430, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 14, 40
_LOWEST = -0.5  # further down there is nothing but room for the key
_COLOURS = {
    "ink": "#1b1f24",
    "soft": "#5d6670",
    "line": "#dfe3e8",
    "mark": "#0b62c4",
    "same": "#1a7f4b",
    "other": "#a4262c",
}
_LINES = (("var(--soft)", "5 4"), ("var(--mark)", ""), ("var(--other)", "2 4"))


def reliability_svg(calibration: Calibration) -> str:
    """A dot a bin, the larger the more pairs lie in it: on the diagonal it is so as often as it is said."""
    dots = [
        {"x": _x(row.predicted), "y": _y(row.observed), "r": round(2.5 + 10 * row.weight**0.5, 2)}
        for row in calibration.checked_on.rows()
    ]
    return _svg(
        label=f"reliability: expected calibration error {calibration.checked_on.ece:.4f}",
        x_title="probability that is said",
        y_title="share that is one person",
        x_ticks=_ticks(0, 1),
        dots=dots,
        lines=[_line([(0, 0), (1, 1)], "var(--soft)", "5 4")],
    )


def probability_svg(calibration: Calibration, faces: int) -> str:
    """The probability by the cosine: of a pair at even odds, among the version's faces and among a million."""
    cosines = np.linspace(_LOWEST, 1, 241)
    at_even_odds = 1 / (1 + np.exp(-calibration.ratio.log_ratio(cosines)))
    curves = [("a pair at even odds", at_even_odds)]
    for searched in dict.fromkeys((faces, max(GALLERIES))):
        curves.append((f"among {searched:,} faces", calibration.same_person(cosines, searched=searched)))
    lines, keys = [], []
    for n, ((name, shares), (colour, dashes)) in enumerate(zip(curves, _LINES, strict=False)):
        points = [((c - _LOWEST) / (1 - _LOWEST), float(p)) for c, p in zip(cosines, shares, strict=True)]
        lines.append(_line(points, colour, dashes))
        keys.append({"name": name, "colour": colour, "dashes": dashes, "y": _TOP + 14 + 18 * n})
    ticks = [(_x((c - _LOWEST) / (1 - _LOWEST)), f"{c:g}") for c in (-0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1)]
    return _svg(
        label="the probability by the cosine",
        x_title="cosine",
        y_title="probability of one person",
        x_ticks=ticks,
        lines=lines,
        keys=keys,
    )


def standalone(svg: str) -> str:
    """The picture for a file of its own, on white."""
    for name, colour in _COLOURS.items():
        svg = svg.replace(f"var(--{name})", colour)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
    head += ' font-family="system-ui, DejaVu Sans, sans-serif" style="background:#fff"'
    return svg.replace("<svg", head, 1) + "\n"


def _svg(*, label: str, x_title: str, y_title: str, x_ticks: Sequence[tuple[float, str]], **marks: object) -> str:
    return render(
        "plot.svg.j2",
        label=label,
        x_title=x_title,
        y_title=y_title,
        x_ticks=x_ticks,
        y_ticks=[(_y(share), f"{share:g}") for share in (0, 0.25, 0.5, 0.75, 1)],
        size=(_WIDTH, _HEIGHT),
        frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        **({"dots": [], "lines": [], "keys": []} | marks),
    ).decode()


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    return [(_x(share), f"{low + share * (high - low):g}") for share in (0, 0.25, 0.5, 0.75, 1)]


def _line(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> dict[str, str]:
    return {"points": " ".join(f"{_x(x)},{_y(y)}" for x, y in points), "colour": colour, "dashes": dashes}


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 2)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM), 2)
