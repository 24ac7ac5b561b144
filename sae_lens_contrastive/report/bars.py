"""A horizontal bar for each variant: mean over its seeds, a dot for each seed, a line over the interval of the mean."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sae_lens_contrastive.report.panels import COLOURS
from sae_lens_contrastive.report.seeds import Spread

BAR_INCHES = 0.24
"""Height that a bar takes on the page, the space to its neighbour included."""

AXIS_INCHES = 0.9
"""Height that the axis below the bars and its label take."""

_FONT_SIZE = 8
_CHARACTER_INCHES = 0.066
_LABEL_WIDTH = 24
_DOT = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "markeredgecolor": "black", "linestyle": "none"}
_INTERVAL = {"color": "black", "linewidth": 1.2}


@dataclass(frozen=True)
class Bar:
    """What one bar shows."""

    spread: Spread
    """The number, for each seed."""
    interval: tuple[float, float] | None = None
    """Drawn as a line; the one of the mean if there are several seeds and none is given."""
    note: str = ""
    """Written behind the number."""

    @property
    def line(self) -> tuple[float, float] | None:
        """Ends of the line to draw."""
        several = len(self.spread.values) > 1
        return self.interval or (self.spread.interval if several else None)


def draw_bars(
    axes: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Bar | None]],
    number: str = "{:.2f}",
    width_inches: float = 5.0,
    colours: Sequence[str] = COLOURS,
) -> None:
    """Draw one group of bars for each label and one bar in it for each series, the first on top.

    `width_inches` is about the width of `axes`: the numbers and notes behind the bars find their room by it.
    """
    height = 0.8 / len(series)
    right = 0.0
    for index, (name, bars) in enumerate(series.items()):
        shift = (index - (len(series) - 1) / 2) * height
        drawn = [(place + shift, bar) for place, bar in enumerate(bars) if bar is not None]
        means = [bar.spread.mean for _place, bar in drawn]
        colour = colours[index % len(colours)]
        axes.barh([place for place, _bar in drawn], means, height * 0.92, color=colour, alpha=0.85, label=name)
        for place, bar in drawn:
            text = f"{number.format(bar.spread.mean)}  {bar.note}".rstrip()
            end = max(bar.spread.mean, *bar.spread.values, *(bar.line or ()))
            _draw_seeds(axes, place, bar)
            axes.annotate(
                text,
                (end, place),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=_FONT_SIZE,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4},
            )
            share = min(0.6, (len(text) * _CHARACTER_INCHES + 0.15) / width_inches)
            right = max(right, end / (1 - share))
    axes.set_xlim(0, right or 1)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), [wrapped(label, _LABEL_WIDTH) for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def seed_handles(bars: Sequence[Bar]) -> list[Line2D]:
    """Legend entries for dots and lines, if there are several seeds."""
    counts = {len(bar.spread.values) for bar in bars} - {1}
    if not counts:
        return []
    most = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    return [
        Line2D([], [], label="one seed", **_DOT),
        Line2D([], [], label=f"95 % interval of the mean ({most} seeds)", **_INTERVAL),
    ]


def wrapped(name: str, width: int) -> str:
    """A name broken into lines at `_`, `-`, `/` and spaces."""
    pieces = name.replace("_", "_ ").replace("/", "/ ")
    lines = textwrap.wrap(pieces, width, break_long_words=False)
    return "\n".join(line.replace("_ ", "_").replace("/ ", "/") for line in lines)


def _draw_seeds(axes: Axes, place: float, bar: Bar) -> None:
    if bar.line is not None:
        axes.plot(bar.line, [place] * 2, zorder=3, **_INTERVAL)
    if len(bar.spread.values) > 1:
        # A dot of a score of 0 is whole, though half of it lies outside.
        axes.plot(bar.spread.values, [place] * len(bar.spread.values), zorder=4, clip_on=False, **_DOT)
