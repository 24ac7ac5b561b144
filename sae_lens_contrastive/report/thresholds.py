"""Thresholds of each variant: what joins features, and what leaves them to be chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.bars import AXIS_INCHES, BAR_INCHES, Bar, draw_bars, seed_handles
from sae_lens_contrastive.report.panels import COLOURS, setting_blocks, shared_legend
from sae_lens_contrastive.report.results import SavedResults, SavedRun
from sae_lens_contrastive.report.seeds import Spread

_PANEL_INCHES = 4.5


@dataclass(frozen=True)
class Thresholds:
    """What one setting has to show."""

    labels: list[str]
    """Variants, from top to bottom."""
    joining: dict[str, Bar | None]
    """Correlation threshold of each variant that was trained, None without groups; empty if none groups."""
    surviving: dict[str, dict[str, Bar]]
    """Features that each selector lets through."""

    @property
    def selectors(self) -> list[str]:
        """Selectors with their options."""
        return list(dict.fromkeys(name for bars in self.surviving.values() for name in bars))

    @property
    def surviving_bars(self) -> dict[str, list[Bar | None]]:
        """For each selector, a bar for each label."""
        return {name: [self.surviving.get(label, {}).get(name) for label in self.labels] for name in self.selectors}

    @property
    def inches(self) -> float:
        """Height of the bars."""
        return AXIS_INCHES + (max(1, len(self.selectors)) * BAR_INCHES + 0.1) * len(self.labels)

    @property
    def n_panels(self) -> int:
        """Panels that have something to show."""
        return bool(self.joining) + bool(self.surviving)


def draw_feature_thresholds(results: SavedResults) -> Figure | None:
    """Correlation threshold of each variant that groups, and features that survive the retain threshold."""
    found = thresholds_of(results)
    if not found:
        return None
    heights = {setting: thresholds.inches for setting, thresholds in found.items()}
    width = 2 + _PANEL_INCHES * max(thresholds.n_panels for thresholds in found.values())
    figure, blocks = setting_blocks(results, heights, width, legend_inches=0.8)
    drawn: list[Bar | None] = []
    for setting, thresholds in found.items():
        panels = list(blocks[setting].subplots(1, thresholds.n_panels, squeeze=False, sharey=True).flat)
        if thresholds.joining:
            drawn += _draw_joining(panels[0], thresholds)
        if thresholds.surviving:
            drawn += _draw_surviving(panels[-1], thresholds)
    shared_legend(figure, columns=5, also=seed_handles([bar for bar in drawn if bar is not None]))
    return figure


def _draw_joining(axes: Axes, thresholds: Thresholds) -> list[Bar | None]:
    labels, bars = thresholds.labels, thresholds.joining
    drawn = [bars.get(name) for name in labels]
    draw_bars(axes, labels, {"": drawn}, number="{:.3f}", width_inches=_PANEL_INCHES - 0.5, colours=COLOURS[2:])
    for place, name in enumerate(labels):
        if name in bars and bars[name] is None:
            axes.text(0, place, " no groups", va="center", fontsize=8, color="#666666")
    axes.set_xlabel("adaptive correlation threshold τ")
    axes.set_title("Correlation that joins features", fontsize=10)
    return drawn


def _draw_surviving(axes: Axes, thresholds: Thresholds) -> list[Bar | None]:
    series = thresholds.surviving_bars
    draw_bars(axes, thresholds.labels, series, number="{:.0f}", width_inches=_PANEL_INCHES - 0.5)
    axes.set_xlabel("features left to choose from")
    axes.set_title("Forget features that a selector lets through", fontsize=10)
    return [bar for drawn in series.values() for bar in drawn]


def thresholds_of(results: SavedResults) -> dict[str, Thresholds]:
    """What each setting has to show, where it has something."""
    found = {setting: _thresholds(results, setting) for setting in results.settings}
    return {setting: thresholds for setting, thresholds in found.items() if thresholds.n_panels}


def _thresholds(results: SavedResults, setting: str) -> Thresholds:
    joining = {variant: _joining(seeds) for variant, seeds in results.runs_of(setting).items()}
    joining = joining if any(joining.values()) else {}
    surviving = {variant: bars for variant, seeds in results.rows_of(setting).items() if (bars := _surviving(seeds))}
    labels = [variant for variant in results.variants if variant in joining or variant in surviving]
    return Thresholds(labels, joining, surviving)


def _joining(runs: Sequence[SavedRun]) -> Bar | None:
    last = [run.history[-1] for run in runs if run.history[-1].get("correlation_threshold") is not None]
    if not last:
        return None
    n_groups = sorted({int(record.get("n_groups", 0)) for record in last})
    counted = f"{n_groups[0]} to {n_groups[-1]}" if len(n_groups) > 1 else str(n_groups[0])
    return Bar(Spread(tuple(record["correlation_threshold"] for record in last)), note=f"{counted} groups")


def _surviving(rows: Sequence[dict[str, Any]]) -> dict[str, Bar]:
    counts: dict[str, list[float]] = {}
    for row in rows:
        # The number does not depend on the other coordinates of a setting.
        for name, count in {_selector(s): s["n_surviving"] for s in row.get("frontier") or ()}.items():
            counts.setdefault(name, []).append(count)
    return {name: Bar(Spread(tuple(of_seeds))) for name, of_seeds in counts.items()}


def _selector(setting: dict[str, Any]) -> str:
    """Name of a selector with its options, such as `retain threshold 0.01`."""
    options = ", ".join(
        f"{key.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
        for key, value in setting["selector_options"].items()
    )
    # The thresholds of SAEBench's selector say enough by themselves.
    named = [options] if setting["selector"] == "firing_rate" and options else [setting["selector"], options]
    return ", ".join(part.replace("_", " ") for part in named if part)
