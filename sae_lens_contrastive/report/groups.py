"""Correlation groups over the training: what joins them, how many there are, how they change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sae_lens_contrastive.report.panels import (
    COLOURS,
    Series,
    scale_counts,
    seed_lines,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.tracker_records import ClusterChanges, GroupingRecord

_PERCENTILES = ("p50", "p75", "p85", "p95", "p99")
_REST = "#cccccc"
# The bands of small groups are thinner than an outline.
_N_OUTLINED = 10
_CHANGES = {"n_kept": "kept", "n_split": "split", "n_merged": "merged", "n_born": "born", "n_died": "died"}


def draw_correlation_history(results: SavedResults) -> Figure | None:
    """Percentiles of the correlations, the threshold, and the groups it makes, for each variant that groups."""
    variants = results.runs_with("grouping")
    if not variants:
        return None
    figure, panels = variant_panels(results, variants, ("|C| of co-firing pairs", "count"))
    # From light to dark with the percentile.
    shades = matplotlib.colormaps["viridis"]([0.9, 0.7, 0.5, 0.25, 0.0])
    for (setting, variant), (correlations, counts) in panels.items():
        runs = variants[setting][variant]
        for name, shade in zip(_PERCENTILES, shades, strict=True):
            label = f"{name[1:]}th percentile of |C|"
            seed_lines(correlations, _series(runs, lambda record, n=name: getattr(record, n)), color=shade, label=label)
        threshold = _series(runs, lambda record: record.threshold)
        seed_lines(correlations, threshold, color=COLOURS[1], linestyle="--", label="threshold $\\tau$")
        seed_lines(counts, _series(runs, lambda record: record.n_grouped), color=COLOURS[2], label="features in groups")
        seed_lines(counts, _series(runs, lambda record: record.n_groups), color=COLOURS[3], label="groups")
    for correlations, _counts in panels.values():
        correlations.set_ylim(bottom=0)
    scale_counts([counts for _correlations, counts in panels.values()])
    shared_legend(figure, columns=5, also=thin_line_handles(results))
    return figure


def draw_clusters(results: SavedResults) -> Figure | None:
    """Sizes of the groups, what became of them, and how far they agree with the groups before, for each variant."""
    variants = results.runs_with("grouping")
    if not variants:
        return None
    drawn_seed = "\n(first seed)" if thin_line_handles(results) else ""
    rows = (f"features in groups{drawn_seed}", "groups", "adjusted Rand index")
    figure, panels = variant_panels(results, variants, rows)
    for (setting, variant), (sizes, changes, agreement) in panels.items():
        runs = variants[setting][variant]
        _draw_sizes(sizes, runs[0].trackers.grouping)
        for colour, (name, label) in zip(COLOURS, _CHANGES.items(), strict=False):
            seed_lines(changes, _changes(runs, lambda c, n=name: getattr(c, n)), color=colour, label=label)
        rand = _changes(runs, lambda clusters: clusters.adjusted_rand_index)
        seed_lines(agreement, rand, color="black")
        agreement.set_ylim(-0.05, 1.05)
    for sizes, *_others in panels.values():
        sizes.set_ylim(bottom=0)
    bands = [Patch(color=_rank_colours(1)[0], label="one group each, the largest at the bottom")]
    records = [record for run in results.runs for record in run.trackers.grouping]
    if any(record.n_grouped > sum(record.sizes) for record in records):
        bands.append(Patch(color=_REST, label=f"groups past the {max(len(r.sizes) for r in records)} largest"))
    shared_legend(figure, columns=5, also=[*bands, *thin_line_handles(results)])
    return figure


def _draw_sizes(axes: Axes, records: Sequence[GroupingRecord]) -> None:
    """A band for each group, the largest at the bottom; groups past those recorded are one grey band."""
    n_bands = max(len(record.sizes) for record in records)
    bands = [[record.sizes[rank] if rank < len(record.sizes) else 0 for record in records] for rank in range(n_bands)]
    bands.append([max(0, record.n_grouped - sum(record.sizes)) for record in records])
    steps = [record.step for record in records]
    if len(steps) == 1:
        steps, bands = [steps[0] - 0.5, steps[0] + 0.5], [band * 2 for band in bands]
    drawn = axes.stackplot(steps, bands, colors=[*_rank_colours(n_bands), _REST], edgecolor="white", linewidth=0.3)
    for band in drawn[_N_OUTLINED:]:
        band.set_linewidth(0)


def _rank_colours(n_ranks: int) -> list[Any]:
    """Dark for the largest; the logarithm tells the few large ones apart."""
    colours = matplotlib.colormaps["viridis"]
    return [colours(0.95 * math.log(1 + rank) / math.log(1 + n_ranks)) for rank in range(n_ranks)]


def _series(runs: Sequence[SavedRun], value: Callable[[GroupingRecord], float | None]) -> list[Series]:
    return [run.tracked("grouping", value) for run in runs]


def _changes(runs: Sequence[SavedRun], value: Callable[[ClusterChanges], float | None]) -> list[Series]:
    return _series(runs, lambda record: None if record.clusters is None else value(record.clusters))
