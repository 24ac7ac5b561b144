"""Plots of evaluation results: the frontier, scores, thresholds, relearning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sae_lens_contrastive.report.frontier import frontiers
from sae_lens_contrastive.report.page.plots import (
    SYMBOLS,
    Key,
    Plot,
    add_line,
    add_reference,
    axis,
    bar_plot,
)
from sae_lens_contrastive.report.page.text import shortened
from sae_lens_contrastive.report.panels import COLOURS, Line, variant_styles
from sae_lens_contrastive.report.relearning import accuracy_by_step, relearning_curves
from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.report.scores import score_bars
from sae_lens_contrastive.report.thresholds import thresholds_of

Blocks = dict[str, list[Plot]]
"""Plots of each setting of a study; of the empty one outside a study."""


def frontier(results: SavedResults) -> Blocks:
    """A point a setting on the select questions, the chosen one ringed."""
    blocks: Blocks = {}
    for setting, rows_of_variant in frontiers(results).items():
        plot = Plot("Every setting", height=420)
        for place, variant in enumerate(results.variants):
            if rows := rows_of_variant.get(variant):
                symbol = SYMBOLS[place % len(SYMBOLS)]
                _add_settings(plot, variant, rows, COLOURS[place % len(COLOURS)], symbol)
        first = next(iter(rows_of_variant.values()))[0]
        add_reference(plot, f"retain gate, {first['retain_gate']:g}", x=first["retain_gate"])
        add_reference(plot, "chance", y=first["held_out"]["chance"], dash="dot")
        plot.layout.update(
            {
                "xaxis": axis("retain accuracy, higher is better"),
                "yaxis": axis("forget accuracy, lower is better", range=[-0.05, 1.05]),
                "hovermode": "closest",
            }
        )
        blocks[setting] = [plot]
    return blocks


def scores(results: SavedResults) -> Blocks:
    """Score and held-out forgetting of each variant, with the cause of a zero."""
    blocks: Blocks = {}
    for setting in results.settings:
        if rows := results.rows_of(setting):
            plot = bar_plot("Scores", list(rows), score_bars(rows), "higher = more is forgotten", right=1.1)
            chance = next(iter(rows.values()))[0]["held_out"]["chance"]
            add_reference(plot, "score of a model at chance", x=1 - chance)
            blocks[setting] = [plot]
    return blocks


def thresholds(results: SavedResults) -> Blocks:
    """Correlation that joins features, and features that survive each selector."""
    blocks: Blocks = {}
    for setting, found in thresholds_of(results).items():
        plots = []
        if found.joining:
            bars = {"": [found.joining.get(label) for label in found.labels]}
            title, x = "Correlation that joins features", "adaptive correlation threshold τ"
            plots.append(bar_plot(title, found.labels, bars, x, number="{:.3f}", colours=COLOURS[2:]))
        if found.surviving:
            title, x = "Forget features that a selector lets through", "features left to choose from"
            plots.append(bar_plot(title, found.labels, found.surviving_bars, x, number="{:.0f}"))
        blocks[setting] = plots
    return blocks


def relearning(results: SavedResults) -> Blocks:
    """Accuracy on held-out forget questions against fine-tuning steps, the edit in place."""
    blocks: Blocks = {}
    styles = variant_styles(results.variants)
    for setting, curves in relearning_curves(results).items():
        plot = Plot("Relearning with the edit in place", height=320)
        for variant, seeds in curves.items():
            style = styles[variant]
            add_line(
                plot, Line(variant, [accuracy_by_step(curve) for curve in seeds], style["color"], style["linestyle"])
            )
        add_reference(plot, "unedited model", y=next(iter(curves.values()))[0]["unedited_accuracy"])
        plot.layout.update(
            {
                "xaxis": axis("fine-tuning steps on forget examples"),
                "yaxis": axis("forget accuracy, held out", range=[-0.05, 1.05]),
            }
        )
        blocks[setting] = [plot]
    return blocks


def _add_settings(plot: Plot, variant: str, rows: Sequence[dict[str, Any]], colour: str, symbol: str) -> None:
    swept = [(row["seed"], setting) for row in rows for setting in row["frontier"]]
    chosen = [(row["seed"], row["setting"]) for row in rows if row.get("setting")]
    places = Counter(_place(setting) for _seed, setting in swept)
    ring = {"color": "rgba(0,0,0,0)", "symbol": "circle", "size": 15, "line": {"color": colour, "width": 2}}
    point = {"color": colour, "symbol": symbol, "size": 8, "opacity": 0.65}
    for settings, marker, what in ((swept, point, ""), (chosen, ring, "chosen: ")):
        if settings:
            plot.traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [setting["retain_accuracy"] for _seed, setting in settings],
                    "y": [setting["forget_accuracy"] for _seed, setting in settings],
                    "customdata": [
                        f"{what}{_setting_in_words(setting)}\nseed {seed}{_others(setting, places)}"
                        for seed, setting in settings
                    ],
                    "hovertemplate": "<b>%{fullData.name}</b><br>%{customdata}"
                    "<br>retain %{x:.3f}, forget %{y:.3f}<extra></extra>",
                    "name": shortened(variant),
                    "legendgroup": variant,
                    "showlegend": False,
                    "marker": marker,
                }
            )
    plot.keys.append(Key(variant, colour, symbol=symbol))
    accuracies = [[setting[f"{side}_accuracy"] for _seed, setting in swept] for side in ("retain", "forget")]
    ranges = " and ".join(
        f"{side} accuracy {min(values):.3f} to {max(values):.3f}"
        for side, values in zip(("retain", "forget"), accuracies, strict=True)
    )
    plot.words.append(f"{variant}: {len(swept)} settings, {ranges}")
    plot.words.extend(
        f"{variant}, seed {seed}, chosen: {_setting_in_words(setting)}: retain {setting['retain_accuracy']:.3f}, "
        f"forget {setting['forget_accuracy']:.3f}".replace("\n", ", ")
        for seed, setting in chosen
    )


def _place(setting: dict[str, Any]) -> tuple[float, float]:
    return setting["retain_accuracy"], setting["forget_accuracy"]


def _others(setting: dict[str, Any], places: Counter[tuple[float, float]]) -> str:
    """How many settings of the variant lie under the same point."""
    n_others = places[_place(setting)] - 1
    return f"\nand {n_others} more at this point" if n_others > 0 else ""


def _setting_in_words(setting: dict[str, Any]) -> str:
    selector = ", ".join([setting["selector"], *_options(setting["selector_options"])])
    intervention = [*([name] if (name := setting.get("intervention")) else [])]
    intervention += _options(setting.get("intervention_options") or {})
    lines = [selector, *([f"n_features {n}"] if (n := setting.get("n_features")) is not None else [])]
    return "\n".join(shortened(line) for line in [*lines, *([", ".join(intervention)] if intervention else [])])


def _options(options: dict[str, Any]) -> list[str]:
    return [f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in options.items()]
