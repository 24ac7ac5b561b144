"""Every setting of every SAE: what is still known of the forgotten against what is still known of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import COLOURS, setting_blocks, shared_legend, tidy
from sae_lens_contrastive.report.results import SavedResults

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_frontier(results: SavedResults) -> Figure | None:
    """Forget against retain accuracy on the select questions: a point a setting, the chosen one ringed."""
    found = frontiers(results)
    if not found:
        return None
    figure, blocks = setting_blocks(results, dict.fromkeys(found, 3.6), 7.2, legend_inches=0.9)
    for setting, rows_of_variant in found.items():
        axes = blocks[setting].subplots()
        for place, variant in enumerate(results.variants):
            rows = rows_of_variant.get(variant, [])
            _draw_variant(axes, variant, rows, COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)])
        rows = next(iter(rows_of_variant.values()))
        gate = rows[0]["retain_gate"]
        at = {"color": "#666666", "linewidth": 1, "zorder": 0}
        axes.axvline(gate, linestyle="--", label=f"retain gate, {gate:g}", **at)
        axes.axhline(rows[0]["held_out"]["chance"], linestyle=":", label="chance", **at)
        axes.set_xlabel("retain accuracy, higher is better", fontsize=9)
        axes.set_ylabel("forget accuracy, lower is better", fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        tidy(axes)
    figure.suptitle("Every setting, on the select questions", fontsize=11)
    shared_legend(figure, columns=4, order=results.variants)
    return figure


def frontiers(results: SavedResults) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{setting: {variant: rows}} of the rows whose settings were swept."""
    found = {}
    for setting in results.settings:
        rows = {
            variant: swept
            for variant, seeds in results.rows_of(setting).items()
            if (swept := [row for row in seeds if row.get("frontier")])
        }
        if rows:
            found[setting] = rows
    return found


def _draw_variant(axes: Axes, variant: str, rows: Sequence[dict[str, Any]], colour: str, marker: str) -> None:
    settings = [setting for row in rows for setting in row["frontier"]]
    chosen = [row["setting"] for row in rows if row.get("setting")]
    if not settings:
        return
    axes.scatter(*_accuracies(settings), s=16, color=colour, marker=marker, alpha=0.6, label=variant, linewidths=0)
    if chosen:
        axes.scatter(*_accuracies(chosen), s=90, facecolors="none", edgecolors=colour, linewidths=1.4, label="chosen")


def _accuracies(settings: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [s["retain_accuracy"] for s in settings], [s["forget_accuracy"] for s in settings]
