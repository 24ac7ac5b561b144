"""How much each variant forgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sae_lens_contrastive.report.bars import AXIS_INCHES, BAR_INCHES, Bar, draw_bars, seed_handles
from sae_lens_contrastive.report.panels import setting_blocks, shared_legend
from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.report.seeds import Spread, causes_of_zero

SCORE = "unlearning score (all questions)"
FORGETTING = "forgetting (held-out questions)"
_WIDTH = 8.6


def draw_unlearning_scores(results: SavedResults) -> Figure | None:
    """Score and held-out forgetting of each variant, with the cause of a zero."""
    by_setting = {setting: rows for setting in results.settings if (rows := results.rows_of(setting))}
    if not by_setting:
        return None
    heights = {setting: AXIS_INCHES + (2 * BAR_INCHES + 0.1) * len(rows) for setting, rows in by_setting.items()}
    figure, blocks = setting_blocks(results, heights, _WIDTH, legend_inches=0.9)
    bars: list[Bar] = []
    for setting, rows in by_setting.items():
        axes = blocks[setting].subplots()
        chance = next(iter(rows.values()))[0]["held_out"]["chance"]
        at_chance = {"color": "#666666", "linestyle": "--", "linewidth": 1, "zorder": 0}
        axes.axvline(1 - chance, label="score of a model at chance", **at_chance)
        series = score_bars(rows)
        draw_bars(axes, list(rows), series, width_inches=_WIDTH - 2)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axes.set_xlabel("higher = more is forgotten")
        bars += [bar for of_series in series.values() for bar in of_series]
    drawn = [block.axes[0] for block in blocks.values()]
    right = max(axes.get_xlim()[1] for axes in drawn)
    for axes in drawn:
        axes.set_xlim(0, max(1.1, right))
    figure.suptitle("Forgetting " + ", ".join(dict.fromkeys(row["forget_domain"] for row in results.rows)))
    also = seed_handles(bars)
    if any(len(bar.spread.values) == 1 and bar.line for bar in bars):
        also.append(Line2D([], [], color="black", linewidth=1.2, label="95 % interval over questions (one seed)"))
    shared_legend(figure, columns=3, order=(SCORE, FORGETTING), also=also)
    return figure


def score_bars(rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[Bar]]:
    """Both numbers of each variant, given its rows, one for each seed."""
    return {
        SCORE: [_score(seeds) for seeds in rows.values()],
        FORGETTING: [_forgetting(seeds) for seeds in rows.values()],
    }


def _score(rows: Sequence[dict[str, Any]]) -> Bar:
    scores = Spread(tuple(row["unlearning_score"] for row in rows))
    return Bar(scores, note=causes_of_zero(row["cause_of_zero"] for row in rows))


def _forgetting(rows: Sequence[dict[str, Any]]) -> Bar:
    spread = Spread(tuple(row["held_out"]["forgetting"] for row in rows))
    if len(rows) > 1:
        return Bar(spread)
    low, high = sorted(_forgetting_at(rows[0], accuracy) for accuracy in rows[0]["held_out"]["ci95"])
    return Bar(spread, (low, high))


def _forgetting_at(row: dict[str, Any], accuracy: float) -> float:
    return min(1.0, (1 - accuracy) / (1 - row["held_out"]["chance"]))
