"""Lines against training step: losses, stability, curriculum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import (
    COLOURS,
    Series,
    draw_quantities,
    logarithmic_if_wide,
    seed_lines,
    shared_legend,
    thin_line_handles,
    variant_panels,
)
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.seeds import thinned
from sae_lens_contrastive.report.tracker_records import CurriculumRecord

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
    # The overall loss comes first; the others in alphabetical order.
    names = sorted(
        {name for run in results.runs for record in run.history for name in record if name.endswith("_loss")}
    )
    names.sort(key=lambda name: name != "overall_loss")
    readers = {name.replace("_", " "): _recorded(name) for name in names}
    quantities = _quantities(results, readers)
    if not quantities:
        return None
    size = max(-(-len(run.history) // _MAX_POINTS) for run in results.runs)
    note = f"points are means of up to {size} successive records" if size > 1 else None
    figure = draw_quantities(results, quantities, legend_title=note)
    for title in readers:
        logarithmic_if_wide([axes for axes in figure.axes if axes.get_title() == title])
    return figure


def draw_stability(results: SavedResults) -> Figure | None:
    """How much decoder rows, groups and importances keep from one look to the next, a line for each variant."""
    readers = {title: _tracked(name) for name, title in _STABILITY.items()}
    quantities = _quantities(results, readers, keep_zeros=True)
    return draw_quantities(results, quantities) if quantities else None


def draw_curriculum(results: SavedResults) -> Figure | None:
    """Overall loss and share of forget tokens of each variant with a curriculum, its stages as bands."""
    variants = results.runs_with("curriculum")
    if not variants:
        return None
    names = dict.fromkeys(record.stage for run in results.runs for record in run.trackers.curriculum)
    colours = dict(zip(names, COLOURS[1:] * len(names), strict=False))
    figure, panels = variant_panels(results, variants, ("overall loss", "share of the forget\ntokens trained on"))
    for (setting, variant), (above, below) in panels.items():
        runs = variants[setting][variant]
        end = int(runs[0].history[-1]["step"])
        stages = runs[0].trackers.curriculum
        seed_lines(above, [thinned(run.recorded("overall_loss"), _MAX_POINTS) for run in runs], color=COLOURS[0])
        seed_lines(below, [run.recorded("forget_share") for run in runs], color=COLOURS[0])
        below.set_ylim(0, 1.08)
        for axes in (above, below):
            _shade_stages(axes, stages, end, colours)
    logarithmic_if_wide([above for above, _below in panels.values()])
    shared_legend(figure, columns=4, also=thin_line_handles(results))
    return figure


def _shade_stages(axes: Axes, stages: Sequence[CurriculumRecord], end: int, colours: Mapping[str, str]) -> None:
    ends = [*(record.step for record in stages[1:]), max(end, stages[-1].step + 1)]
    for record, stage_end in zip(stages, ends, strict=True):
        colour = colours[record.stage]
        axes.axvspan(record.step, stage_end, color=colour, alpha=0.15, linewidth=0, label=f"stage {record.stage}")


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
        return thinned({step: value for step, value in run.recorded(name).items() if value}, _MAX_POINTS)

    return nonzero


def _tracked(name: str) -> Callable[[SavedRun], Series]:
    return lambda run: run.tracked("stability", attrgetter(name))
