"""Line panels that every figure of a training shares: colours, blocks of settings, lines over seeds, legends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.report.seeds import spread_by_step

# Okabe and Ito's palette: told apart by colour-blind readers and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
_LINE_STYLES = ("-", "--", ":", "-.")
_MAX_COLUMNS = 4
_TITLE_INCHES = 0.4
_LEGEND_MARK_INCHES = 0.6
_LEGEND_CHARACTER_INCHES = 0.075
_THIN: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.4}

Series = Mapping[int, float]
"""Value at each training step, of one seed."""


@dataclass(frozen=True)
class Line:
    """A quantity against training step."""

    label: str
    """What the legend calls it; empty for a line that its panel names."""
    seeds: Sequence[Series]
    """A series for each seed."""
    colour: str
    """Colour."""
    style: str = "-"
    """Line style, by matplotlib's sign for it."""
    marker: str = ""
    """matplotlib's sign for the points that are drawn in the place of a line."""


def variant_styles(variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and line style of each variant: the colours repeat with another line style."""
    return {
        variant: {
            "color": COLOURS[place % len(COLOURS)],
            "linestyle": _LINE_STYLES[place // len(COLOURS) % len(_LINE_STYLES)],
        }
        for place, variant in enumerate(variants)
    }


def setting_blocks(
    results: SavedResults, heights: Mapping[str, float], width: float, legend_inches: float
) -> tuple[Figure, dict[str, SubFigure]]:
    """A figure with a block for each setting, one below the other, under the setting's name; heights in inches."""
    inches = {setting: height + bool(setting) * _TITLE_INCHES for setting, height in heights.items()}
    figure = Figure(figsize=(width, sum(inches.values()) + legend_inches), layout="constrained")
    blocks = figure.subfigures(len(inches), 1, squeeze=False, height_ratios=list(inches.values()))
    for setting, block in zip(inches, blocks.flat, strict=True):
        if setting:
            block.suptitle(results.title_of(setting), x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, dict(zip(inches, blocks.flat, strict=True))


def seed_lines(axes: Axes, seeds: Sequence[Series], **style: Any) -> None:
    """Draw the mean over seeds with `style`, and behind it each of several seeds as a thin line."""
    spreads = spread_by_step(seeds)
    if not spreads:
        return
    for series in seeds if len(seeds) > 1 else ():
        axes.plot(list(series), list(series.values()), color=style.get("color"), **_THIN)
    # A line through one point is not seen.
    marker = {"marker": "o", "markersize": 3} if len(spreads) == 1 else {}
    style = {"linewidth": 1.5, "alpha": 0.7, **marker, **style}
    axes.plot(list(spreads), [spread.mean for spread in spreads.values()], **style)


def draw_lines(axes: Axes, lines: Iterable[Line]) -> None:
    """Draw lines over their seeds; points are the mean over them."""
    for line in lines:
        if not line.marker:
            named = {"label": line.label} if line.label else {}
            seed_lines(axes, line.seeds, color=line.colour, linestyle=line.style, **named)
        elif points := {step: spread.mean for step, spread in spread_by_step(line.seeds).items()}:
            style: dict[str, Any] = {"color": line.colour, "markersize": 5, "label": line.label}
            axes.plot(list(points), list(points.values()), line.marker, **style)


def draw_quantities(
    results: SavedResults,
    quantities: Mapping[str, Mapping[str, Mapping[str, Sequence[Series]]]],
    legend_title: str | None = None,
) -> Figure:
    """A panel for each quantity and in it a line for each variant: {setting: {quantity: {variant: seeds}}}."""
    columns = _columns(max(len(panels) for panels in quantities.values()))
    heights = {setting: 2.7 * -(-len(panels) // columns) for setting, panels in quantities.items()}
    variants = {name for panels in quantities.values() for lines in panels.values() for name in lines}
    styles = variant_styles(results.variants)
    legend_inches = 0.45 + 0.22 * -(-len(variants) // (columns + 1))
    figure, blocks = setting_blocks(results, heights, max(6.4, 4.0 * columns), legend_inches)
    for setting, panels in quantities.items():
        grid = blocks[setting].subplots(-(-len(panels) // columns), columns, squeeze=False)
        for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
            for variant, seeds in lines.items():
                seed_lines(axes, seeds, label=variant, **styles[variant])
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("training step", fontsize=9)
            tidy(axes)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
    order = [variant for variant in results.variants if variant in variants]
    shared_legend(figure, columns + 1, order, also=thin_line_handles(results), title=legend_title)
    return figure


def variant_panels(
    results: SavedResults, variants: Mapping[str, Collection[str]], row_names: Sequence[str]
) -> tuple[Figure, dict[tuple[str, str], list[Axes]]]:
    """Small multiples: a column of panels for each variant of each setting, one panel for each of `row_names`.

    Panels of one row share their vertical axis within a setting, so that variants can be compared.
    """
    n_rows = len(row_names)
    columns = _columns(max(map(len, variants.values())))
    bands = {setting: -(-len(names) // columns) for setting, names in variants.items()}
    heights = {setting: n * (0.6 + 1.75 * n_rows) for setting, n in bands.items()}
    figure, blocks = setting_blocks(results, heights, max(7.5, 1.0 + 3.3 * columns), legend_inches=0.7)
    panels: dict[tuple[str, str], list[Axes]] = {}
    for setting, names in ((setting, list(names)) for setting, names in variants.items()):
        first: list[Axes] = []
        for band, part in enumerate(blocks[setting].subfigures(bands[setting], 1, squeeze=False).flat):
            grid = part.subplots(n_rows, columns, squeeze=False)
            for column, name in enumerate(names[band * columns : (band + 1) * columns]):
                own = panels[setting, name] = list(grid[:, column])
                first = first or own
                _join_axes(own, first, row_names if column == 0 else ())
                own[0].set_title(name, fontsize=10)
            for axes in grid[:, len(names) - band * columns :].flat:
                axes.set_visible(False)
    return figure, panels


def shared_legend(
    figure: Figure, columns: int, order: Sequence[str] = (), also: Iterable[Any] = (), title: str | None = None
) -> None:
    """One legend below the figure, each label once, those in `order` first, in at most `columns` that fit its width."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles |= {handle.get_label(): handle for handle in also}
    labels = [*(label for label in order if label in handles), *(label for label in handles if label not in order)]
    widest = _LEGEND_MARK_INCHES + max((len(label) for label in labels), default=0) * _LEGEND_CHARACTER_INCHES
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=max(1, min(columns, len(labels), int(figure.get_figwidth() / widest))),
        fontsize=9,
        frameon=False,
        title=title,
    )


def tidy(axes: Axes) -> None:
    """Small numbers, no box."""
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic_if_wide(panels: Sequence[Axes]) -> None:
    """One logarithmic scale for panels of the same quantity, if it is positive and falls or grows more than fivefold.

    A few values far below all others, where a loss touches 0, are left outside the panel.
    """
    limits = logarithmic_limits(_line_values(panels))
    if limits is None:
        return
    low, high = limits
    for axes in panels:
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def logarithmic_limits(values: Float[np.ndarray, " n"]) -> tuple[float, float] | None:
    """Lowest, a few far outliers apart, and highest of values that want a logarithmic scale; None if they do not."""
    values = values[values != 0]
    if not values.size or values.min() < 0:
        return None
    low, high = float(np.percentile(values, 1)), float(values.max())
    return (low, high) if high > 5 * low else None


def scale_counts(panels: Sequence[Axes]) -> None:
    """One logarithmic scale for panels of counts, that goes down to 0 if one of them does."""
    values = _line_values(panels)
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    for axes in panels:
        axes.set_yscale("symlog" if low < 1 else "log", **({"linthresh": 1} if low < 1 else {}))
        # A line at 0 would hide behind the axis.
        axes.set_ylim(-0.2 if low < 1 else low / 1.5, max(1, high) * 1.5)


def thin_line_handles(results: SavedResults) -> list[Line2D]:
    """Legend entry for the thin lines of `seed_lines`, if there are several seeds."""
    most = max((len(runs) for setting in results.settings for runs in results.runs_of(setting).values()), default=1)
    return [Line2D([], [], color="black", label=f"thin: one seed of {most}", **_THIN)] if most > 1 else []


def _line_values(panels: Sequence[Axes]) -> Float[np.ndarray, " n"]:
    lines = [np.asarray(line.get_ydata(), dtype=float) for axes in panels for line in axes.get_lines()]
    return np.concatenate([np.zeros(0), *lines])


def _columns(n_panels: int) -> int:
    """Columns that fill as few rows as possible, evenly."""
    return -(-n_panels // -(-n_panels // _MAX_COLUMNS))


def _join_axes(own: Sequence[Axes], first: Sequence[Axes], row_names: Sequence[str]) -> None:
    """Put the panels of a variant below each other: one step axis, and the value axes of the first variant."""
    for row, (axes, shared) in enumerate(zip(own, first, strict=True)):
        if axes is not own[-1]:
            axes.sharex(own[-1])
        if axes is not shared:
            axes.sharey(shared)
        tidy(axes)
        axes.tick_params(labelbottom=axes is own[-1], labelleft=bool(row_names))
        if row_names:
            axes.set_ylabel(row_names[row], fontsize=9)
    own[-1].set_xlabel("training step", fontsize=9)
