"""How fast what was forgotten comes back under fine-tuning."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from sae_lens_contrastive.report.panels import seed_lines, setting_blocks, shared_legend, tidy, variant_styles
from sae_lens_contrastive.report.results import SavedResults


def draw_relearning(results: SavedResults) -> Figure | None:
    """Accuracy on held-out forget questions against fine-tuning steps on a few forget examples, the edit in place."""
    found = relearning_curves(results)
    if not found:
        return None
    figure, blocks = setting_blocks(results, dict.fromkeys(found, 3.2), 6.4, legend_inches=0.8)
    styles = variant_styles(results.variants)
    for setting, curves in found.items():
        axes = blocks[setting].subplots()
        for variant, seeds in curves.items():
            seed_lines(axes, [accuracy_by_step(curve) for curve in seeds], label=variant, **styles[variant])
        unedited = next(iter(curves.values()))[0]["unedited_accuracy"]
        axes.axhline(unedited, color="#666666", linestyle="--", linewidth=1, zorder=0, label="unedited model")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_ylim(-0.03, 1.05)
        axes.set_title("Relearning with the edit in place", fontsize=10)
        axes.set_xlabel("fine-tuning steps on forget examples", fontsize=9)
        axes.set_ylabel("forget accuracy, held out", fontsize=9)
        tidy(axes)
    shared_legend(figure, columns=4, order=results.variants)
    return figure


def relearning_curves(results: SavedResults) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{setting: {variant: what was measured with each seed}}, where it was."""
    found = {}
    for setting in results.settings:
        curves = {
            variant: measured
            for variant, rows in results.rows_of(setting).items()
            if (measured := [curve for row in rows if (curve := (row.get("measures") or {}).get("relearning"))])
        }
        if curves:
            found[setting] = curves
    return found


def accuracy_by_step(curve: dict[str, Any]) -> dict[int, float]:
    """Accuracy on held-out forget questions after each number of fine-tuning steps."""
    return dict(zip(curve["steps"], curve["accuracy"], strict=True))
