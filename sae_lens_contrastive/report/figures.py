"""The three figures of the study, from saved results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sae_lens_contrastive.report.results import SavedResults

# Okabe and Ito's palette: told apart by colour-blind readers and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")


def write_figures(results: SavedResults, folder: Path | str) -> list[Path]:
    """Draw every figure for which there are data and return the files written.

    `unlearning_scores.png`: score and held-out forgetting of each SAE; `training_losses.png`: loss against step, a
    line for each variant; `feature_thresholds.png`: correlation threshold and surviving features of each variant.
    """
    drawings: dict[str, Callable[[SavedResults], Figure | None]] = {
        "unlearning_scores.png": _unlearning_scores,
        "training_losses.png": _training_losses,
        "feature_thresholds.png": _feature_thresholds,
    }
    written = []
    for name, draw in drawings.items():
        if (figure := draw(results)) is not None:
            FigureCanvasAgg(figure)
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
            written.append(path)
    return written


def _unlearning_scores(results: SavedResults) -> Figure | None:
    if not results.rows:
        return None
    labels = [_label(row, results.rows) for row in results.rows]
    figure = Figure(figsize=(max(6.4, 2.2 + 1.6 * len(labels)), 4.4), layout="constrained")
    axes = figure.subplots()
    scores = [row["unlearning_score"] for row in results.rows]
    forgetting = [row["held_out"]["forgetting"] for row in results.rows]
    intervals = [sorted(_forgetting_at(row, accuracy) for accuracy in row["held_out"]["ci95"]) for row in results.rows]
    series = {
        "unlearning score (select questions)": scores,
        "forgetting (held-out questions, 95 % interval)": forgetting,
    }
    # The number of a bar stands above its interval, or the line would strike it out.
    tops = {"forgetting (held-out questions, 95 % interval)": [high for _low, high in intervals]}
    _bars(axes, labels, series, tops=tops)
    for place, (row, (low, high)) in enumerate(zip(results.rows, intervals, strict=True)):
        axes.plot([place + 0.2] * 2, [low, high], color="black", linewidth=1.5, zorder=3)
        if row["cause_of_zero"]:
            axes.text(place - 0.2, 0.07, row["cause_of_zero"], ha="center", fontsize=8, rotation=90)
    at_chance = 1 - results.rows[0]["held_out"]["chance"]
    axes.axhline(at_chance, color="#666666", linestyle="--", linewidth=1)
    axes.text(1.01, at_chance, "score\nat chance", va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("higher = more is forgotten")
    axes.set_title(f"Forgetting {results.rows[0]['forget_domain']}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _training_losses(results: SavedResults) -> Figure | None:
    if not results.histories:
        return None
    names = ["overall_loss", *sorted({n for h in results.histories.values() for n in h[-1] if n.endswith("_loss")})]
    names = [name for name in dict.fromkeys(names) if _varies(results, name)]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        for colour, (variant, history) in zip(COLOURS * 4, results.histories.items(), strict=False):
            points = [(record["step"], record[name]) for record in history if record.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=variant, color=colour, alpha=0.7)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("training step")
        axes.spines[["top", "right"]].set_visible(False)
        if _spans_decades(results, name):
            axes.set_yscale("log")
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    grid.flat[0].legend(fontsize=8, frameon=False)
    return figure


def _feature_thresholds(results: SavedResults) -> Figure | None:
    thresholds = {
        variant: history[-1]["correlation_threshold"]
        for variant, history in results.histories.items()
        if history and history[-1].get("correlation_threshold") is not None
    }
    frontiers = {_label(row, results.rows): row["frontier"] for row in results.rows if row.get("frontier")}
    if not thresholds and not frontiers:
        return None
    widths = [max(4.6, 1.0 + 0.9 * len(bars)) for bars in (thresholds, frontiers) if bars]
    figure = Figure(figsize=(sum(widths), 4.0), layout="constrained")
    axes = list(figure.subplots(1, len(widths), squeeze=False, width_ratios=widths).flat)
    if thresholds:
        _draw_correlation_thresholds(axes.pop(0), thresholds, results)
    if frontiers:
        _draw_surviving_features(axes.pop(0), frontiers)
    return figure


def _draw_correlation_thresholds(axes: Axes, thresholds: dict[str, float], results: SavedResults) -> None:
    places = range(len(thresholds))
    axes.bar(places, list(thresholds.values()), color=COLOURS[: len(thresholds)], width=0.6)
    for place, (variant, threshold) in enumerate(thresholds.items()):
        n_groups = int(results.histories[variant][-1].get("n_groups", 0))
        axes.text(place, threshold, f"{threshold:.3f}\n{n_groups} groups", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(list(places), list(thresholds))
    axes.set_xlim(-1, len(thresholds))
    axes.set_ylim(0, max(thresholds.values()) * 1.25 or 1)
    axes.set_ylabel("adaptive correlation threshold $\\tau$")
    axes.set_title("Correlation that joins features", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_surviving_features(axes: Axes, frontiers: dict[str, list[dict[str, Any]]]) -> None:
    values = sorted({setting["retain_threshold"] for frontier in frontiers.values() for setting in frontier})
    series = {
        f"retain threshold {value:g}": [
            next((s["n_surviving"] for s in frontier if s["retain_threshold"] == value), 0)
            for frontier in frontiers.values()
        ]
        for value in values
    }
    _bars(axes, list(frontiers), series, number="{:.0f}")
    axes.set_ylabel("features left to choose from")
    axes.set_title("Forget features below the retain threshold", fontsize=10)
    axes.set_ylim(0, max(1, *(count for counts in series.values() for count in counts)) * 1.4)
    axes.legend(loc="upper center", ncols=2, fontsize=8, frameon=False)


def _bars(
    axes: Axes,
    labels: list[str],
    series: Mapping[str, Sequence[float]],
    number: str = "{:.2f}",
    tops: Mapping[str, Sequence[float]] | None = None,
) -> None:
    width = 0.8 / len(series)
    for index, (colour, (name, values)) in enumerate(zip(COLOURS, series.items(), strict=False)):
        shift = (index - (len(series) - 1) / 2) * width
        places = [place + shift for place in range(len(labels))]
        axes.bar(places, values, width=width * 0.95, color=colour, alpha=0.85, label=name)
        for place, value, top in zip(places, values, (tops or {}).get(name, values), strict=True):
            at = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}
            axes.annotate(number.format(value), (place, max(value, top)), **at)
    axes.set_xticks(range(len(labels)), labels)
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    same = [other for other in rows if other["variant"] == row["variant"]]
    return row["variant"] if len(same) == 1 else f"{row['variant']}\nseed {row['seed']}"


def _forgetting_at(row: dict[str, Any], accuracy: float) -> float:
    return min(1.0, (1 - accuracy) / (1 - row["held_out"]["chance"]))


def _varies(results: SavedResults, name: str) -> bool:
    return any(record.get(name) for history in results.histories.values() for record in history)


def _spans_decades(results: SavedResults, name: str) -> bool:
    values = [record[name] for history in results.histories.values() for record in history if record.get(name)]
    return min(values) > 0 and max(values) > 100 * min(values)
