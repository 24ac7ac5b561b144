"""Plots of training runs: losses, groups, importance, stability, curriculum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sae_lens_contrastive.report.groups import (
    REST_COLOUR,
    agreement_lines,
    change_lines,
    correlation_lines,
    group_count_lines,
    rank_colours,
    size_bands,
)
from sae_lens_contrastive.report.importance import count_lines, quantile_bands, quantile_lines
from sae_lens_contrastive.report.over_steps import (
    Quantities,
    forget_share_lines,
    overall_loss_lines,
    stability,
    stage_colours,
    stage_spans,
    training_losses,
)
from sae_lens_contrastive.report.page.evaluated import Blocks
from sae_lens_contrastive.report.page.plots import Key, Plot, add_band, add_line, axis, line_plot, logarithmic
from sae_lens_contrastive.report.page.text import shortened
from sae_lens_contrastive.report.panels import COLOURS, Line, variant_styles
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.tracker_records import GroupingRecord


def losses(results: SavedResults) -> Blocks:
    """Loss against step: a plot for each loss that is ever other than 0, a line for each variant."""
    blocks = _of_quantities(results, training_losses(results))
    for title in dict.fromkeys(plot.title for plots in blocks.values() for plot in plots):
        logarithmic([plot for plots in blocks.values() for plot in plots if plot.title == title])
    return blocks


def drift(results: SavedResults) -> Blocks:
    """How much decoder rows, groups and importances keep from one look to the next."""
    return _of_quantities(results, stability(results))


def correlations(results: SavedResults) -> Blocks:
    """Percentiles of the correlations, the threshold, and the groups it makes."""
    return _of_runs(
        results,
        ("grouping",),
        lambda variant, runs: [
            line_plot(
                f"{variant}: correlations", correlation_lines(runs), "|C| of co-firing pairs", rangemode="tozero"
            ),
            line_plot(f"{variant}: groups", group_count_lines(runs), "count", rangemode="tozero"),
        ],
    )


def clusters(results: SavedResults) -> Blocks:
    """Sizes of the groups, what became of them, and how far they agree with the groups before."""
    return _of_runs(
        results,
        ("grouping",),
        lambda variant, runs: [
            _sizes(f"{variant}: sizes", runs[0].trackers.grouping),
            line_plot(f"{variant}: changes", change_lines(runs), "groups", rangemode="tozero"),
            line_plot(f"{variant}: agreement", agreement_lines(runs), "adjusted Rand index", range=[-0.05, 1.05]),
        ],
    )


def importance(results: SavedResults) -> Blocks:
    """Distribution of the importance, and features below its threshold, pruned and reinitialised."""

    def plots(variant: str, runs: Sequence[SavedRun]) -> list[Plot]:
        distribution = Plot(f"{variant}: importance")
        distribution.layout.update(xaxis=axis("training step"), yaxis=axis("importance", rangemode="tozero"))
        for band in quantile_bands(runs):
            if band.steps:
                add_band(distribution, band.label, band.steps, band.low, band.high, COLOURS[0], band.alpha)
        for line in quantile_lines(runs):
            add_line(distribution, line)
        return [distribution, line_plot(f"{variant}: features", count_lines(runs), "features", rangemode="tozero")]

    return _of_runs(results, ("importance", "pruning", "reinitialisation"), plots)


def curriculum(results: SavedResults) -> Blocks:
    """Overall loss and share of forget tokens of each variant with a curriculum, its stages as bands."""
    colours = stage_colours(results)

    def plots(variant: str, runs: Sequence[SavedRun]) -> list[Plot]:
        loss = line_plot(f"{variant}: overall loss", overall_loss_lines(runs), "overall loss")
        share = "share of forget tokens trained on"
        forget = line_plot(f"{variant}: {share}", forget_share_lines(runs), "share", range=[0, 1.08])
        logarithmic([loss])
        for plot in (loss, forget):
            _add_stages(plot, runs[0], colours)
        return [loss, forget]

    return _of_runs(results, ("curriculum",), plots)


def _of_quantities(results: SavedResults, quantities: Mapping[str, Quantities]) -> Blocks:
    styles = variant_styles(results.variants)
    return {
        setting: [
            line_plot(
                title,
                [Line(variant, seeds, **_style(styles[variant])) for variant, seeds in lines.items()],
                "",
            )
            for title, lines in panels.items()
        ]
        for setting, panels in quantities.items()
    }


def _style(style: Mapping[str, str]) -> dict[str, str]:
    return {"colour": style["color"], "style": style["linestyle"]}


def _of_runs(
    results: SavedResults, parts: Sequence[str], plots: Callable[[str, Sequence[SavedRun]], list[Plot]]
) -> Blocks:
    """Plots of each variant in which one of some trackers recorded something; those without a value are left out."""
    blocks = {
        setting: [plot for variant, runs in variants.items() for plot in plots(variant, runs) if plot.traces]
        for setting, variants in results.runs_with(*parts).items()
    }
    return {setting: found for setting, found in blocks.items() if found}


def _sizes(title: str, records: Sequence[GroupingRecord]) -> Plot:
    steps, bands = size_bands(records)
    plot = Plot(title)
    plot.layout.update(xaxis=axis("training step"), yaxis=axis("features in groups", rangemode="tozero"))
    names = [*(f"group {rank + 1} by size" for rank in range(len(bands) - 1)), "groups past those"]
    colours = [*rank_colours(len(bands) - 1), REST_COLOUR]
    for name, band, colour in zip(names, bands, colours, strict=True):
        if any(band):
            edge = {
                "mode": "lines",
                "line": {"width": 0.3, "color": colour},
                "fillcolor": colour,
                "stackgroup": "groups",
            }
            hover = "%{fullData.name}: %{y} features at %{x}<extra></extra>"
            place = {"x": steps, "y": band, "hovertemplate": hover, "showlegend": False}
            plot.traces.append({"type": "scatter", "name": name, "legendgroup": "groups", **edge, **place})
    if plot.traces:
        plot.keys.append(Key("one group each, the largest at the bottom", colours[0], fill=1.0))
        if any(bands[-1]):
            plot.keys.append(Key("groups past the largest", REST_COLOUR, fill=1.0))
        total = [sum(sizes) for sizes in zip(*bands, strict=True)]
        plot.words.append(f"features in groups: {total[0]} at {steps[0]:g}, {total[-1]} at {steps[-1]:g}")
    return plot


def _add_stages(plot: Plot, run: SavedRun, colours: Mapping[str, str]) -> None:
    for stage, start, end in stage_spans(run):
        place = {"x0": start, "x1": end, "y0": 0, "y1": 1, "yref": "paper"}
        look = {"fillcolor": colours[stage], "opacity": 0.15, "line": {"width": 0}, "layer": "below"}
        plot.layout.setdefault("shapes", []).append({"type": "rect", **place, **look})
        plot.words.append(f"stage {shortened(stage)}: from {start} to {end}")
        plot.keys.append(Key(f"stage {shortened(stage)}", colours[stage], fill=0.15))
