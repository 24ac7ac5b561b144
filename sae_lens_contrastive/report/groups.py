"""Correlation groups over the training: what joins them, how many there are, how they change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sae_lens_contrastive.report.panels import (
    COLOURS,
    Line,
    Series,
    draw_lines,
    scale_counts,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.tracker_records import ClusterChanges, GroupingRecord

_PERCENTILES = ("p50", "p75", "p85", "p95", "p99")
REST_COLOUR = "#cccccc"
"""Colour of the groups past those recorded."""
# The bands of small groups are thinner than an outline.
_N_OUTLINED = 10
_CHANGES = {"n_kept": "kept", "n_split": "split", "n_merged": "merged", "n_born": "born", "n_died": "died"}


def draw_correlation_history(results: SavedResults) -> Figure | None:
    """Percentiles of the correlations, the threshold, and the groups it makes, for each variant that groups."""
    variants = results.runs_with("grouping")
    if not variants:
        return None
    figure, panels = variant_panels(results, variants, ("|C| of co-firing pairs", "count"))
    for (setting, variant), (correlations, counts) in panels.items():
        runs = variants[setting][variant]
        draw_lines(correlations, correlation_lines(runs))
        draw_lines(counts, group_count_lines(runs))
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
        draw_lines(changes, change_lines(runs))
        draw_lines(agreement, agreement_lines(runs))
        agreement.set_ylim(-0.05, 1.05)
    for sizes, *_others in panels.values():
        sizes.set_ylim(bottom=0)
    bands = [Patch(color=rank_colours(1)[0], label="one group each, the largest at the bottom")]
    records = [record for run in results.runs for record in run.trackers.grouping]
    if any(record.n_grouped > sum(record.sizes) for record in records):
        bands.append(Patch(color=REST_COLOUR, label=f"groups past the {max(len(r.sizes) for r in records)} largest"))
    shared_legend(figure, columns=5, also=[*bands, *thin_line_handles(results)])
    return figure


def correlation_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Percentiles of the correlations, from light to dark, and the threshold."""
    lines = []
    for name, place in zip(_PERCENTILES, (0.9, 0.7, 0.5, 0.25, 0.0), strict=True):
        seeds = _series(runs, lambda record, n=name: getattr(record, n))
        lines.append(Line(f"{name[1:]}th percentile of |C|", seeds, _viridis(place)))
    threshold = _series(runs, lambda record: record.threshold)
    return [*lines, Line("threshold τ", threshold, COLOURS[1], "--")]


def group_count_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Groups, and features in them."""
    return [
        Line("features in groups", _series(runs, lambda record: record.n_grouped), COLOURS[2]),
        Line("groups", _series(runs, lambda record: record.n_groups), COLOURS[3]),
    ]


def change_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """What became of the groups of the time before."""
    return [
        Line(label, _changes(runs, lambda c, n=name: getattr(c, n)), colour)
        for colour, (name, label) in zip(COLOURS, _CHANGES.items(), strict=False)
    ]


def agreement_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Adjusted Rand index of successive groupings."""
    return [Line("", _changes(runs, lambda clusters: clusters.adjusted_rand_index), COLOURS[7])]


def size_bands(records: Sequence[GroupingRecord]) -> tuple[list[float], list[list[int]]]:
    """Steps, and a band for each group, the largest first; groups past those recorded are one last band."""
    n_bands = max(len(record.sizes) for record in records)
    bands = [[record.sizes[rank] if rank < len(record.sizes) else 0 for record in records] for rank in range(n_bands)]
    bands.append([max(0, record.n_grouped - sum(record.sizes)) for record in records])
    steps: list[float] = [record.step for record in records]
    if len(steps) == 1:
        steps, bands = [steps[0] - 0.5, steps[0] + 0.5], [band * 2 for band in bands]
    return steps, bands


def _draw_sizes(axes: Axes, records: Sequence[GroupingRecord]) -> None:
    steps, bands = size_bands(records)
    colours = [*rank_colours(len(bands) - 1), REST_COLOUR]
    drawn = axes.stackplot(steps, bands, colors=colours, edgecolor="white", linewidth=0.3)
    for band in drawn[_N_OUTLINED:]:
        band.set_linewidth(0)


def rank_colours(n_ranks: int) -> list[str]:
    """Dark for the largest group; the logarithm tells the few large ones apart."""
    return [_viridis(0.95 * math.log(1 + rank) / math.log(1 + n_ranks)) for rank in range(n_ranks)]


def _viridis(place: float) -> str:
    return to_hex(matplotlib.colormaps["viridis"](place))


def _series(runs: Sequence[SavedRun], value: Callable[[GroupingRecord], float | None]) -> list[Series]:
    return [run.tracked("grouping", value) for run in runs]


def _changes(runs: Sequence[SavedRun], value: Callable[[ClusterChanges], float | None]) -> list[Series]:
    return _series(runs, lambda record: None if record.clusters is None else value(record.clusters))
