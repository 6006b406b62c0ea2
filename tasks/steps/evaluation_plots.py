"""The pictures of an evaluation. Matplotlib is slow to import, so it is imported when a picture is drawn.

As SVG, colours are those of the page around them, light or dark; as PNG, they are dark on white.
"""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tasks.steps.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plot", "plots_of"]

_INK, _SOFT, _LINE, _SAME, _OTHER, _MARK = "#1b1f24", "#5d6670", "#dfe3e8", "#1a7f4b", "#a4262c", "#0b62c4"
_VARIABLES = {_INK: "ink", _SOFT: "soft", _LINE: "line", _SAME: "same", _OTHER: "other", _MARK: "mark"}
_SIZE_IN = (4.6, 3.2)  # at 72 dots an inch about as wide as a phone, so that text is never shrunk there
_FONT_PT = 10.5


@dataclass(frozen=True)
class Plot:
    """A picture to be drawn.

    Attributes:
        key: a short name.
        title: what it shows.
        alt: the same for those who cannot see it.
        caption: how to read it.
        draw: puts it on matplotlib's axes.
    """

    key: str
    title: str
    alt: str
    caption: str
    draw: "Callable[[Axes], None]"

    def svg(self) -> str:
        """An `<svg>` element without a size of its own, coloured by the page's variables."""
        text = self._render("svg").decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(
            r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL
        )  # it would be the page's
        text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # in the page's own letters
        head, rest = text.split(">", maxsplit=1)
        head = re.sub(r' (width|height|xmlns|xmlns:xlink)="[^"]*"', "", head)  # HTML knows the names, CSS the size
        rest = rest.replace("xlink:href=", "href=")
        rest = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{self.key}-", rest)  # ids are the page's: none may be twice
        text = f"{head}>{rest}"
        for colour, name in _VARIABLES.items():
            text = text.replace(colour, f"var(--{name})")
        return text

    def png(self, *, dpi: int = 110) -> bytes:
        """The picture on white."""
        return self._render("png", dpi=dpi, facecolor="white")

    def _render(self, kind: Literal["svg", "png"], **settings: Any) -> bytes:
        from matplotlib.figure import Figure  # noqa: PLC0415

        with _style():
            figure = Figure(figsize=_SIZE_IN, layout="constrained")
            axes = figure.add_subplot()
            self.draw(axes)
            sink = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(
                sink, format=kind, metadata=metadata, **({"transparent": True} if kind == "svg" else settings)
            )
        return sink.getvalue()


def plots_of(evaluation: Evaluation) -> list[Plot]:
    """The pictures of an evaluation, those without data left out."""
    plots = [_roc(evaluation), _scores(evaluation), _folds(evaluation)]
    if evaluation.retrieval is not None and len(evaluation.retrieval.rank_one) > 1:
        plots.append(_rank_one(evaluation))
    return plots


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context  # noqa: PLC0415

    return rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "lookalike",
            "font.size": _FONT_PT,
            "axes.labelsize": _FONT_PT,
            "axes.edgecolor": _SOFT,
            "axes.labelcolor": _INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": _LINE,
            "grid.linewidth": 0.8,
            "text.color": _INK,
            "xtick.color": _SOFT,
            "ytick.color": _SOFT,
            "xtick.labelcolor": _INK,
            "ytick.labelcolor": _INK,
            "legend.frameon": False,
            "legend.fontsize": _FONT_PT - 1,
        }
    )


def _roc(evaluation: Evaluation) -> Plot:
    far, tar = evaluation.curve.far, evaluation.curve.tar
    smallest = 1 / (evaluation.pairs - evaluation.same)
    measured = [
        (row.far, row.tar, row.low, row.high)
        for row in evaluation.tar_at_far
        if row.tar is not None and row.low is not None and row.high is not None
    ]

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter  # noqa: PLC0415

        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.plot([max(f, smallest / 2) for f in far], tar, color=_MARK, linewidth=1.8)
        for limit, share, low, high in measured:
            axes.plot([limit] * 2, [low, high], color=_INK, linewidth=1.2)
            axes.plot([limit], [share], marker="o", markersize=4.5, color=_INK, linestyle="none")
        axes.set_xlim(smallest, 1)
        bottom = min(0.99, _first_above(far, tar, smallest), *(low for _, _, low, _ in measured))
        axes.set_ylim(bottom - 0.08 * (1 - bottom), 1 + 0.03 * (1 - bottom))
        axes.set_xlabel("false accept rate (log scale)")
        axes.set_ylabel("true accept rate")

    caption = (
        "How many pairs of one person are accepted (upwards) when so many pairs of two people are, wrongly (to the right). "
        f"Dots are the rows of the table, with their intervals. The axis ends where one pair of two people is accepted, {smallest:.2g}."
    )
    return Plot("roc", "ROC", f"ROC curve, area below {evaluation.auc:.4f}", caption, draw)


def _first_above(far: Sequence[float], tar: Sequence[float], least: float) -> float:
    """The TAR where the curve enters the picture."""
    return max((t for f, t in zip(far, tar, strict=True) if f < least), default=0.0)


def _scores(evaluation: Evaluation) -> Plot:
    bins = evaluation.histogram
    thresholds = [t for t in (fold.threshold for fold in evaluation.folds.folds) if abs(t) <= 1]
    low, high = (min(thresholds), max(thresholds)) if thresholds else (None, None)

    def draw(axes: "Axes") -> None:
        axes.stairs(_shares(bins.different), bins.edges, color=_OTHER, fill=True, alpha=0.25)
        axes.stairs(
            _shares(bins.different), bins.edges, color=_OTHER, linewidth=1.6, linestyle="--", label="two people"
        )
        axes.stairs(_shares(bins.same), bins.edges, color=_SAME, fill=True, alpha=0.25)
        axes.stairs(_shares(bins.same), bins.edges, color=_SAME, linewidth=1.6, label="one person")
        if low is not None and high is not None:
            axes.axvline((low + high) / 2, color=_INK, linewidth=1.2, linestyle=":", label="threshold")
        axes.set_xlim(bins.edges[0], bins.edges[-1])
        axes.set_ylim(0, max([*_shares(bins.same), *_shares(bins.different), 1.0]) * 1.05)
        axes.set_xlabel("cosine")
        axes.set_ylabel("% of the pairs of a kind")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1.6, columnspacing=1.2)

    told = "" if low is None else f" The folds' thresholds lie between {low:.3f} and {high:.3f}."
    caption = f"The fewer pairs lie on the wrong side of the threshold, the better. Pairs without two faces are not shown.{told}"
    return Plot("scores", "Scores", "histograms of the cosines of pairs of one person and of two", caption, draw)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [100 * count / total for count in counts]


def _folds(evaluation: Evaluation) -> Plot:
    folds, mean = evaluation.folds, evaluation.folds.mean
    values = [fold.accuracy for fold in folds.folds]

    def draw(axes: "Axes") -> None:
        axes.axhspan(mean - folds.std, min(1.0, mean + folds.std), color=_MARK, alpha=0.12, linewidth=0)
        axes.axhline(mean, color=_MARK, linewidth=1.4)
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=6, linestyle="none", color=_INK)
        axes.set_xlim(0.4, len(values) + 0.6)
        axes.set_xticks(range(1, len(values) + 1) if len(values) <= 12 else range(1, len(values) + 1, len(values) // 8))
        room = max(0.004, 0.15 * (max(values) - min(values)))
        axes.set_ylim(min([*values, mean - folds.std]) - room, min(1.0, max([*values, mean + folds.std])) + room)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("fold")
        axes.set_ylabel("accuracy")

    caption = "Each fold is tested with the threshold that is best on all others. The line is the mean, the band the deviation around it."
    return Plot("folds", "Accuracy by fold", f"accuracy of {len(values)} folds, mean {mean:.4f}", caption, draw)


def _rank_one(evaluation: Evaluation) -> Plot:
    points = evaluation.retrieval.rank_one if evaluation.retrieval else ()
    sizes, shares = [p.gallery for p in points], [p.accuracy for p in points]

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: PLC0415

        axes.set_xscale("log")
        axes.plot(sizes, shares, color=_MARK, linewidth=1.8, marker="o", markersize=5)
        axes.set_xticks(_spread(sizes))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        room = max(0.004, 0.15 * (max(shares) - min(shares)))
        axes.set_ylim(min(shares) - room, min(1.0, max(shares) + room) + 0.15 * room)
        axes.set_xlabel("faces in the gallery (log scale)")
        axes.set_ylabel("rank-1 accuracy")

    caption = "How often the one photo of the same person comes first among so many faces of others; the mean over all galleries of a size."
    last = points[-1]
    return Plot(
        "rank-one", "Rank-1 by gallery size", f"falls to {last.accuracy:.4f} among {last.gallery:,}", caption, draw
    )


def _spread(sizes: Sequence[int]) -> list[int]:
    """Those sizes that are far enough apart for their numbers to stand side by side."""
    shown = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if size * 2.4 < shown[-1]:
            shown.append(size)
    return shown[::-1]
