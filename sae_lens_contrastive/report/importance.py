"""Importance of the features over the training, and what pruning and reinitialisation make of it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import (
    COLOURS,
    scale_counts,
    seed_lines,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.seeds import spread_by_step


def draw_importance(results: SavedResults) -> Figure | None:
    """Distribution of the importance, and features below its threshold, pruned and reinitialised, for each variant."""
    variants = results.runs_with("importance", "pruning", "reinitialisation")
    if not variants:
        return None
    figure, panels = variant_panels(results, variants, ("importance", "features"))
    for (setting, variant), (distribution, counts) in panels.items():
        runs = variants[setting][variant]
        _draw_distribution(distribution, runs)
        _draw_counts(counts, runs)
    for (setting, variant), (distribution, _counts) in panels.items():
        if any(record.quantiles.p99 for run in variants[setting][variant] for record in run.trackers.importance):
            # Features that never fire have importance 0: their bands reach the lower edge.
            distribution.set_yscale("log", nonpositive="clip")
    scale_counts([counts for _distribution, counts in panels.values()])
    shared_legend(figure, columns=4, also=thin_line_handles(results))
    return figure


def _draw_distribution(axes: Axes, runs: Sequence[SavedRun]) -> None:
    quantiles = {name: _mean_quantile(runs, name) for name in ("p10", "p25", "p50", "p75", "p90", "p99")}
    for low, high, alpha in (("p10", "p90", 0.2), ("p25", "p75", 0.4)):
        steps = sorted(quantiles[low].keys() & quantiles[high].keys())
        lows, highs = ([quantiles[name][step] for step in steps] for name in (low, high))
        label = f"{low[1:]}th to {high[1:]}th percentile of importance"
        axes.fill_between(steps, lows, highs, color=COLOURS[0], alpha=alpha, linewidth=0, label=label)
    for name, label, style in (("p50", "median importance", "-"), ("p99", "99th percentile of importance", ":")):
        seed_lines(axes, [quantiles[name]], color=COLOURS[0], linestyle=style, label=label)


def _draw_counts(axes: Axes, runs: Sequence[SavedRun]) -> None:
    below = [run.tracked("importance", attrgetter("n_below_threshold")) for run in runs]
    pruned = [run.tracked("pruning", attrgetter("n_pruned")) for run in runs]
    seed_lines(axes, below, color=COLOURS[2], linestyle="--", label="below the importance threshold")
    seed_lines(axes, pruned, color=COLOURS[1], label="pruned")
    for name, label, marker, colour in (
        ("n_reinitialised", "reinitialised", "^", COLOURS[3]),
        ("n_alive_again", "alive again of those before", ".", COLOURS[7]),
    ):
        counts = spread_by_step(run.tracked("reinitialisation", attrgetter(name)) for run in runs)
        points = {step: spread.mean for step, spread in counts.items() if max(spread.values) > 0}
        if points:
            axes.plot(list(points), list(points.values()), marker, color=colour, markersize=5, label=label)


def _mean_quantile(runs: Sequence[SavedRun], name: str) -> dict[int, float]:
    spreads = spread_by_step(run.tracked("importance", attrgetter(f"quantiles.{name}")) for run in runs)
    return {step: spread.mean for step, spread in spreads.items()}
