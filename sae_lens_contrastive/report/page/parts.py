"""What a page is made of, as the template reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sae_lens_contrastive.report.examples import FoundExamples
from sae_lens_contrastive.report.over_steps import thinning_note
from sae_lens_contrastive.report.page import evaluated, trained
from sae_lens_contrastive.report.page.evaluated import Blocks
from sae_lens_contrastive.report.page.plots import Key, Plot, keys_of
from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.saved_examples import FeatureExamples

_SHADES = 8


@dataclass(frozen=True)
class PlotSection:
    """Plots under one heading, with one legend."""

    id: str
    """Fragment of its address."""
    heading: str
    """Heading."""
    note: str
    """What is to be known to read the plots."""
    blocks: list[tuple[str, list[tuple[int, Plot]]]]
    """Title of each setting, and its plots with their numbers on the page."""
    keys: list[Key]
    """The legend; the place of an entry is what `legendgroup` says of a trace."""

    @property
    def most_plots(self) -> int:
        """Plots of the setting that has most."""
        return max(len(plots) for _title, plots in self.blocks)


_SECTIONS: tuple[tuple[str, str, str, Callable[[SavedResults], Blocks]], ...] = (
    (
        "frontier",
        "Forgetting against keeping",
        "A point is a setting, on the select questions; the chosen one is ringed.",
        evaluated.frontier,
    ),
    (
        "scores",
        "Unlearning scores",
        "Where the score is 0, its cause is named. A line is a 95 % interval: over questions for one seed, else of the "
        "mean over seeds, which are the dots.",
        evaluated.scores,
    ),
    ("losses", "Training losses", "A record of exactly 0 is left out.", trained.losses),
    ("thresholds", "Feature thresholds", "", evaluated.thresholds),
    ("correlations", "Correlation history", "", trained.correlations),
    ("clusters", "Clusters", "Sizes are those of the first seed.", trained.clusters),
    ("importance", "Importance", "", trained.importance),
    ("stability", "Feature stability", "", trained.drift),
    ("curriculum", "Curriculum", "Stages are shaded.", trained.curriculum),
    ("relearning", "Relearning", "", evaluated.relearning),
)


def plot_sections(results: SavedResults) -> list[PlotSection]:
    """Every section for which there are data."""
    sections = []
    n_plots = 0
    for name, heading, note, blocks_of in _SECTIONS:
        blocks = blocks_of(results)
        if not blocks:
            continue
        numbered = []
        for setting, plots in blocks.items():
            numbered.append((results.title_of(setting), list(enumerate(plots, start=n_plots))))
            n_plots += len(plots)
        keys = keys_of(plot for plots in blocks.values() for plot in plots)
        if any(plot.has_thin_lines for plots in blocks.values() for plot in plots):
            note = f"{note} A thin line is one seed.".strip()
        if name == "losses" and (thinned := thinning_note(results)):
            note = f"{note} {thinned[0].upper()}{thinned[1:]}."
        sections.append(PlotSection(name, heading, note, numbered, keys))
    return sections


def plot_data(sections: Sequence[PlotSection]) -> list[dict[str, Any]]:
    """Traces, layout and height of each plot, in the order of their numbers."""
    data = []
    for section in sections:
        place = {key.name: str(number) for number, key in enumerate(section.keys)}
        for _title, plots in section.blocks:
            for _number, plot in plots:
                traces = [{**trace, "legendgroup": place.get(trace["legendgroup"], "")} for trace in plot.traces]
                data.append({"data": traces, "layout": plot.layout, "height": plot.height})
    return data


@dataclass(frozen=True)
class Shaded:
    """A token of a snippet."""

    text: str
    """The token."""
    shade: int
    """0 to 8: its activation as a share of the feature's highest on the page, rounded up."""
    activation: float
    """Activation of the feature."""


@dataclass(frozen=True)
class ShownFeature:
    """A feature with its snippets."""

    feature: FeatureExamples
    """What was saved."""
    snippets: list[tuple[str, list[Shaded]]] = field(default_factory=list)
    """Corpus and tokens of each snippet."""


def shown_features(found: FoundExamples) -> list[ShownFeature]:
    """The features of an SAE with their tokens shaded."""
    return [_shown(feature) for feature in found.examples.features]


def _shown(feature: FeatureExamples) -> ShownFeature:
    highest = max((value for snippet in feature.snippets for value in snippet.activations), default=0.0)
    shown = ShownFeature(feature)
    for snippet in feature.snippets:
        tokens = [
            Shaded(text, -int(-value * _SHADES // highest) if value else 0, value)
            for text, value in zip(snippet.tokens, snippet.activations, strict=True)
        ]
        shown.snippets.append((snippet.corpus, tokens))
    return shown
