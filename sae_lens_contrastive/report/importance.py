"""Importance of the features over the training, and what pruning and reinitialisation make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import (
    COLOURS,
    Line,
    draw_lines,
    scale_counts,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.seeds import spread_by_step


@dataclass(frozen=True)
class Band:
    """The range between two percentiles against training step, means over the seeds."""

    label: str
    """What the legend calls it."""
    steps: list[int]
    """Training steps."""
    low: list[float]
    """Lower edge."""
    high: list[float]
    """Upper edge."""
    alpha: float
    """Opacity."""


def draw_importance(results: SavedResults) -> Figure | None:
    """Distribution of the importance, and features below its threshold, pruned and reinitialised, for each variant."""
    variants = results.runs_with("importance", "pruning", "reinitialisation")
    if not variants:
        return None
    figure, panels = variant_panels(results, variants, ("importance", "features"))
    for (setting, variant), (distribution, counts) in panels.items():
        runs = variants[setting][variant]
        _draw_distribution(distribution, runs)
        draw_lines(counts, count_lines(runs))
    for (setting, variant), (distribution, _counts) in panels.items():
        if any(record.quantiles.p99 for run in variants[setting][variant] for record in run.trackers.importance):
            # Features that never fire have importance 0: their bands reach the lower edge.
            distribution.set_yscale("log", nonpositive="clip")
    scale_counts([counts for _distribution, counts in panels.values()])
    shared_legend(figure, columns=4, also=thin_line_handles(results))
    return figure


def quantile_bands(runs: Sequence[SavedRun]) -> list[Band]:
    """Where most of the features lie, the wider band first."""
    bands = []
    for low, high, alpha in (("p10", "p90", 0.2), ("p25", "p75", 0.4)):
        lows, highs = _mean_quantile(runs, low), _mean_quantile(runs, high)
        steps = sorted(lows.keys() & highs.keys())
        label = f"{low[1:]}th to {high[1:]}th percentile of importance"
        bands.append(Band(label, steps, [lows[step] for step in steps], [highs[step] for step in steps], alpha))
    return bands


def quantile_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Median and 99th percentile, means over the seeds."""
    return [
        Line(label, [_mean_quantile(runs, name)], COLOURS[0], style)
        for name, label, style in (
            ("p50", "median importance", "-"),
            ("p99", "99th percentile of importance", ":"),
        )
    ]


def count_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Features below the threshold, pruned and reinitialised."""
    below = [run.tracked("importance", attrgetter("n_below_threshold")) for run in runs]
    pruned = [run.tracked("pruning", attrgetter("n_pruned")) for run in runs]
    lines = [
        Line("below the importance threshold", below, COLOURS[2], "--"),
        Line("pruned", pruned, COLOURS[1]),
    ]
    for name, label, marker, colour in (
        ("n_reinitialised", "reinitialised", "^", COLOURS[3]),
        ("n_alive_again", "alive again of those before", ".", COLOURS[7]),
    ):
        counts = spread_by_step(run.tracked("reinitialisation", attrgetter(name)) for run in runs)
        points = {step: spread.mean for step, spread in counts.items() if max(spread.values) > 0}
        lines.append(Line(label, [points], colour, marker=marker))
    return lines


def _draw_distribution(axes: Axes, runs: Sequence[SavedRun]) -> None:
    for band in quantile_bands(runs):
        shade = {"color": COLOURS[0], "alpha": band.alpha, "linewidth": 0, "label": band.label}
        axes.fill_between(band.steps, band.low, band.high, **shade)
    draw_lines(axes, quantile_lines(runs))


def _mean_quantile(runs: Sequence[SavedRun], name: str) -> dict[int, float]:
    spreads = spread_by_step(run.tracked("importance", attrgetter(f"quantiles.{name}")) for run in runs)
    return {step: spread.mean for step, spread in spreads.items()}
