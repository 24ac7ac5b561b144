"""Lines against training step: losses, stability, curriculum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import (
    COLOURS,
    Line,
    Series,
    draw_lines,
    draw_quantities,
    logarithmic_if_wide,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.seeds import thinned

_STABILITY = {
    "decoder_cosine_mean": "decoder cosine, mean over features",
    "decoder_cosine_p5": "decoder cosine, 5th percentile",
    "adjusted_rand_index": "adjusted Rand index of successive groupings",
    "importance_spearman": "Spearman correlation of successive importances",
}

# Batch noise would bury the lines of a dozen variants.
_MAX_POINTS = 120

Quantities = dict[str, dict[str, list[Series]]]
"""{name of a quantity: {variant: a series for each seed}}."""


def draw_training_losses(results: SavedResults) -> Figure | None:
    """Loss against step: a panel for each loss that is ever other than 0, a line for each variant.

    A record of exactly 0 is left out: a term gives it where it has nothing to act on, or is not due.
    """
    quantities = training_losses(results)
    if not quantities:
        return None
    figure = draw_quantities(results, quantities, legend_title=thinning_note(results))
    for title in dict.fromkeys(title for panels in quantities.values() for title in panels):
        logarithmic_if_wide([axes for axes in figure.axes if axes.get_title() == title])
    return figure


def draw_stability(results: SavedResults) -> Figure | None:
    """How much decoder rows, groups and importances keep from one look to the next, a line for each variant."""
    quantities = stability(results)
    return draw_quantities(results, quantities) if quantities else None


def draw_curriculum(results: SavedResults) -> Figure | None:
    """Overall loss and share of forget tokens of each variant with a curriculum, its stages as bands."""
    variants = results.runs_with("curriculum")
    if not variants:
        return None
    colours = stage_colours(results)
    figure, panels = variant_panels(results, variants, ("overall loss", "share of the forget\ntokens trained on"))
    for (setting, variant), (above, below) in panels.items():
        runs = variants[setting][variant]
        draw_lines(above, overall_loss_lines(runs))
        draw_lines(below, forget_share_lines(runs))
        below.set_ylim(0, 1.08)
        for axes in (above, below):
            _shade_stages(axes, runs[0], colours)
    logarithmic_if_wide([above for above, _below in panels.values()])
    shared_legend(figure, columns=4, also=thin_line_handles(results))
    return figure


def training_losses(results: SavedResults) -> dict[str, Quantities]:
    """{setting: every loss that is ever other than 0}: the overall loss first, the others in alphabetical order."""
    names = sorted(
        {name for run in results.runs for record in run.history for name in record if name.endswith("_loss")}
    )
    names.sort(key=lambda name: name != "overall_loss")
    return _quantities(results, {name.replace("_", " "): _recorded(name) for name in names})


def thinning_note(results: SavedResults) -> str | None:
    """How many records a point of a loss stands for, if it is more than one."""
    size = max(-(-len(run.history) // _MAX_POINTS) for run in results.runs)
    return f"points are means of up to {size} successive records" if size > 1 else None


def stability(results: SavedResults) -> dict[str, Quantities]:
    """{setting: what decoder rows, groups and importances keep}."""
    return _quantities(results, {title: _tracked(name) for name, title in _STABILITY.items()}, keep_zeros=True)


def overall_loss_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """The overall loss."""
    return [Line("", [thinned(run.recorded("overall_loss"), _MAX_POINTS) for run in runs], COLOURS[0])]


def forget_share_lines(runs: Sequence[SavedRun]) -> list[Line]:
    """Share of the forget tokens that are trained on."""
    return [Line("", [run.recorded("forget_share") for run in runs], COLOURS[0])]


def stage_colours(results: SavedResults) -> dict[str, str]:
    """A colour for each stage of any curriculum."""
    names = dict.fromkeys(record.stage for run in results.runs for record in run.trackers.curriculum)
    return dict(zip(names, COLOURS[1:] * len(names), strict=False))


def stage_spans(run: SavedRun) -> list[tuple[str, int, int]]:
    """Name, first step and end of each stage of a run with a curriculum."""
    stages, last = run.trackers.curriculum, int(run.history[-1]["step"])
    ends = [*(record.step for record in stages[1:]), max(last, stages[-1].step + 1)]
    return [(record.stage, record.step, end) for record, end in zip(stages, ends, strict=True)]


def _shade_stages(axes: Axes, run: SavedRun, colours: Mapping[str, str]) -> None:
    for stage, start, end in stage_spans(run):
        axes.axvspan(start, end, color=colours[stage], alpha=0.15, linewidth=0, label=f"stage {stage}")


def _quantities(
    results: SavedResults, readers: Mapping[str, Callable[[SavedRun], Series]], keep_zeros: bool = False
) -> dict[str, Quantities]:
    """What `readers` find in the runs of each setting; a quantity that no run has, or that is always 0, is left out."""
    found: dict[str, Quantities] = {}
    for setting in results.settings:
        for title, read in readers.items():
            lines = {
                variant: series
                for variant, runs in results.runs_of(setting).items()
                if (series := [values for run in runs if (values := read(run))])
            }
            if any(keep_zeros or value for seeds in lines.values() for series in seeds for value in series.values()):
                found.setdefault(setting, {})[title] = lines
    return found


def _recorded(name: str) -> Callable[[SavedRun], Series]:
    def nonzero(run: SavedRun) -> Series:
        return thinned(run.recorded(name), _MAX_POINTS, keep_zeros=False)

    return nonzero


def _tracked(name: str) -> Callable[[SavedRun], Series]:
    return lambda run: run.tracked("stability", attrgetter(name))
