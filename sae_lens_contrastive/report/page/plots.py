"""Plots as Plotly describes them, with what they say in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sae_lens_contrastive.report.bars import Bar, wrapped
from sae_lens_contrastive.report.page.text import shortened
from sae_lens_contrastive.report.panels import COLOURS, Line, logarithmic_limits
from sae_lens_contrastive.report.seeds import spread_by_step

# Drawn in the colours of the page in force.
INK, PAPER = "#000000", "#ffffff"

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_MARKERS = {"^": "triangle-up", ".": "circle"}
_ONE_SEED = "one seed"
_ROW_PIXELS = 26
_LABEL_WIDTH = 16


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    name: str
    """What it stands for."""
    colour: str
    """Colour."""
    dash: str = "solid"
    """Plotly's name of the line style."""
    symbol: str = ""
    """Plotly's name of the marker of points; empty for a line."""
    fill: float = 0.0
    """Opacity of an area; 0 for a line or points."""


@dataclass(frozen=True)
class Plot:
    """One plot."""

    title: str
    """What it shows."""
    traces: list[dict[str, Any]] = field(default_factory=list)
    """Plotly's traces; those of one entry of the legend share its name as `legendgroup`."""
    layout: dict[str, Any] = field(default_factory=dict)
    """Plotly's layout."""
    words: list[str] = field(default_factory=list)
    """What it shows, in sentences."""
    keys: list[Key] = field(default_factory=list)
    """Its entries of the legend."""
    height: int = 260
    """Pixels."""

    @property
    def has_thin_lines(self) -> bool:
        """Whether lines of single seeds are drawn behind those of their means."""
        return any(trace.get("meta") == _ONE_SEED for trace in self.traces)


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, **options}


def line_plot(title: str, lines: Iterable[Line], y: str, x: str = "training step", **y_options: Any) -> Plot:
    """Lines over seeds against a step: the mean, and behind it each of several seeds."""
    plot = Plot(title, layout={"xaxis": axis(x), "yaxis": axis(y, **y_options)})
    for line in lines:
        add_line(plot, line)
    return plot


def add_line(plot: Plot, line: Line) -> None:
    """Add a line, or points, to a plot."""
    means = {step: spread.mean for step, spread in spread_by_step(line.seeds).items()}
    if not means:
        return
    name = line.label or plot.title
    style = {"color": line.colour, "dash": _DASHES[line.style]}
    for series in line.seeds if len(line.seeds) > 1 else ():
        thin = {**style, "width": 0.8}
        plot.traces.append(
            _trace(name, series, mode="lines", line=thin, opacity=0.35, hoverinfo="skip", meta=_ONE_SEED)
        )
    drawn = {"mode": "lines", "line": {**style, "width": 2}}
    if line.marker or len(means) == 1:
        symbol = _MARKERS.get(line.marker, "circle")
        drawn = {"mode": "markers", "marker": {"color": line.colour, "symbol": symbol, "size": 8}}
    hover = "%{fullData.name}<br>%{y:.4g} at %{x}<extra></extra>"
    plot.traces.append(_trace(name, means, hovertemplate=hover, **drawn))
    plot.words.append(_in_words(name, means))
    if line.label:
        symbol = _MARKERS.get(line.marker, "")
        plot.keys.append(Key(name, line.colour, style["dash"], symbol))


def add_band(plot: Plot, name: str, steps: Sequence[float], low: Any, high: Any, colour: str, alpha: float) -> None:
    """Add the area between two series."""
    edge = {"mode": "lines", "line": {"width": 0, "color": colour}, "hoverinfo": "skip"}
    fill = "".join((colour, f"{round(alpha * 255):02x}"))
    plot.traces.append(_trace(name, dict(zip(steps, low, strict=True)), **edge))
    upper = {**edge, "fill": "tonexty", "fillcolor": fill}
    plot.traces.append(_trace(name, dict(zip(steps, high, strict=True)), **upper))
    plot.keys.append(Key(name, colour, fill=alpha))


def add_reference(plot: Plot, name: str, *, x: float | None = None, y: float | None = None, dash: str = "dash") -> None:
    """Add a straight line across the plot at a value."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
    if y is not None:
        ends = {"x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y}
    line = {"color": INK, "width": 1, "dash": dash}
    plot.layout.setdefault("shapes", []).append({"type": "line", "line": line, **ends})
    plot.words.append(f"{name}: {x if y is None else y:g}")
    plot.keys.append(Key(name, INK, dash))


def bar_plot(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Bar | None]],
    x: str,
    *,
    number: str = "{:.2f}",
    colours: Sequence[str] = COLOURS,
    right: float = 0.0,
) -> Plot:
    """Horizontal bars, one for each series within each label; dots are seeds, lines intervals.

    `number` is the format of a value; the axis ends at `right` or beyond.
    """
    height = 0.8 / len(series)
    plot = Plot(title, height=90 + _ROW_PIXELS * len(labels) * len(series))
    ends = [right]
    for index, (name, bars) in enumerate(series.items()):
        shift = (index - (len(series) - 1) / 2) * height
        placed = [(place + shift, labels[place], bar) for place, bar in enumerate(bars) if bar is not None]
        colour = colours[index % len(colours)]
        _add_bars(plot, name or title, placed, height, colour, number)
        ends += [_end(bar) * 1.15 for _place, _label, bar in placed]
        if name:
            plot.keys.append(Key(name, colour, fill=0.85))
    texts = [wrapped(shortened(label, 48), _LABEL_WIDTH) for label in labels]
    plot.layout.update(
        {
            "barmode": "overlay",
            "xaxis": axis(x, range=[0, max(ends) or 1]),
            "yaxis": {
                "range": [len(labels) - 0.4, -0.6],
                "tickvals": list(range(len(labels))),
                "ticktext": texts,
                "showgrid": False,
            },
        }
    )
    return plot


def _add_bars(
    plot: Plot, name: str, placed: Sequence[tuple[float, str, Bar]], height: float, colour: str, number: str
) -> None:
    means = [bar.spread.mean for _place, _label, bar in placed]
    places = [place for place, _label, _bar in placed]
    says = [_bar_in_words(label, name, bar, number) for _place, label, bar in placed]
    lines = [bar.line or (bar.spread.mean, bar.spread.mean) for _place, _label, bar in placed]
    interval = {
        "type": "data",
        "symmetric": False,
        "array": [high - mean for (_low, high), mean in zip(lines, means, strict=True)],
        "arrayminus": [mean - low for (low, _high), mean in zip(lines, means, strict=True)],
        "color": INK,
        "thickness": 1.4,
        "width": 0,
    }
    shared = {"name": shortened(name), "legendgroup": name, "showlegend": False}
    hover = "%{customdata}<extra></extra>"
    marker = {"color": colour, "opacity": 0.85}
    bars = {"type": "bar", "orientation": "h", "x": means, "y": places, "width": height * 0.92, "marker": marker}
    plot.traces.append({**bars, "error_x": interval, "customdata": says, "hovertemplate": hover, **shared})
    dots = [
        (value, place) for place, _label, bar in placed for value in bar.spread.values if len(bar.spread.values) > 1
    ]
    if dots:
        dot = {"color": PAPER, "size": 5, "line": {"color": INK, "width": 1}}
        at = {"x": [value for value, _place in dots], "y": [place for _value, place in dots]}
        seeds = {"type": "scatter", "mode": "markers", "marker": dot, "hoverinfo": "skip", "cliponaxis": False}
        plot.traces.append({**seeds, **at, **shared})
    # Where a bar is long there is no room for the note behind it.
    texts = [
        f"\u2002{number.format(m)}  {'' if m else bar.note}" for m, (_p, _l, bar) in zip(means, placed, strict=True)
    ]
    label = {"type": "scatter", "mode": "text", "textposition": "middle right", "text": texts, "hoverinfo": "skip"}
    at = {"x": [_end(bar) for _place, _label, bar in placed], "y": places, "cliponaxis": False}
    plot.traces.append({**label, **at, **shared, "textfont": {"size": 11}})
    plot.words.extend(said.replace("\n", ", ") for said in says)


def logarithmic(plots: Sequence[Plot]) -> None:
    """One logarithmic scale for the lines of plots, if their values are positive and far apart."""
    values = [y for plot in plots for trace in plot.traces for y in trace["y"] if y is not None]
    limits = logarithmic_limits(np.asarray(values, dtype=float))
    if limits is not None:
        low, high = limits[0] / 1.3, limits[1] * 1.3
        steps = (1, 2, 5) if high < 80 * low else (1,)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
        scale = {"range": [math.log10(low), math.log10(high)], "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
        for plot in plots:
            plot.layout["yaxis"].update(type="log", **scale)


def keys_of(plots: Iterable[Plot]) -> list[Key]:
    """Entries of a legend that several plots share, each once, those that only refer to a value last."""
    keys: dict[str, Key] = {}
    for plot in plots:
        for key in plot.keys:
            keys.setdefault(key.name, key)
    return sorted(keys.values(), key=lambda key: key.colour == INK)


def _trace(name: str, series: Mapping[Any, Any], **options: Any) -> dict[str, Any]:
    points = {"x": list(series), "y": list(series.values())}
    return {"type": "scatter", **points, "name": shortened(name), "legendgroup": name, "showlegend": False, **options}


def _end(bar: Bar) -> float:
    return max(bar.spread.mean, *bar.spread.values, *(bar.line or ()))


def _in_words(name: str, series: Mapping[int, float]) -> str:
    steps = list(series)
    first = f"{name}: {series[steps[0]]:.4g} at {steps[0]:g}"
    return first if len(steps) == 1 else f"{first}, {series[steps[-1]]:.4g} at {steps[-1]:g}"


def _bar_in_words(label: str, name: str, bar: Bar, number: str) -> str:
    said = f"{shortened(label)}\n{name}: {number.format(bar.spread.mean)}"
    if bar.line is not None:
        low, high = bar.line
        said += f" ({number.format(low)} to {number.format(high)})"
    return f"{said}\n{bar.note}" if bar.note else said
