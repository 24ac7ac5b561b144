"""The trials of a search: forget against retain accuracy, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.report.figures import save_figure
from sae_lens_contrastive.report.table import in_columns

PARETO_FILE = "pareto.json"
FIGURE_FILE = "pareto_front.png"

_VALUES = ("forget_accuracy", "retain_accuracy", "explained_variance")


def write_pareto_front(folder: Path | str) -> Path | None:
    """Draw `pareto_front.png` from the `pareto.json` of a search; None if no trial has values.

    A point a trial, its colour the explained variance. Trials that no other dominates in all three objectives are
    ringed and numbered; the line joins those that none dominates in the two accuracies. Raises `UserError` if the file
    is missing or damaged, or there is no room for the figure.
    """
    trials = _trials(Path(folder) / PARETO_FILE)
    measured = [trial for trial in trials if trial["values"] is not None]
    if not measured:
        return None
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    retain, forget, variance = ([t["values"][name] for t in measured] for name in (_VALUES[1], _VALUES[0], _VALUES[2]))
    points = axes.scatter(retain, forget, c=variance, cmap="viridis", s=45, zorder=3)
    figure.colorbar(points, ax=axes, label="explained variance")
    _draw_front(axes, [trial for trial in measured if trial["on_front"]])
    axes.margins(0.12)
    axes.set_xlabel("retain accuracy (select questions), higher is better")
    axes.set_ylabel("forget accuracy (select questions), lower is better")
    failed = len(trials) - len(measured)
    axes.set_title(f"{len(measured)} trials" + (f", {failed} more failed" if failed else ""), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save_figure(figure, Path(folder) / FIGURE_FILE)


def front_table(folder: Path | str) -> str:
    """One line for each trial on the Pareto front of a search, the one that forgets most first."""
    front = [trial for trial in _trials(Path(folder) / PARETO_FILE) if trial["on_front"]]
    lines: list[tuple[str, ...]] = [("trial", "forget", "retain", "explained variance", "values")]
    for trial in sorted(front, key=lambda trial: (trial["values"]["forget_accuracy"], trial["number"])):
        values = ", ".join(f"{key}={_short(value)}" for key, value in trial.get("params", {}).items())
        lines.append((f"{trial['number']:03d}", *(f"{trial['values'][name]:.3f}" for name in _VALUES), values))
    return in_columns(lines)


def best_pairs(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (retain, forget) accuracies that no other pair dominates, each once, by rising retain accuracy."""
    best: list[tuple[float, float]] = []
    # By falling retain accuracy, a pair belongs if it forgets more than all before it.
    for retain, forget in sorted(set(pairs), key=lambda pair: (-pair[0], pair[1])):
        if not best or forget < best[-1][1]:
            best.append((retain, forget))
    return best[::-1]


def _draw_front(axes: Axes, front: list[dict[str, Any]]) -> None:
    numbers: dict[tuple[float, float], list[str]] = {}
    for trial in front:
        place = (trial["values"]["retain_accuracy"], trial["values"]["forget_accuracy"])
        numbers.setdefault(place, []).append(str(trial["number"]))
    axes.plot(
        *zip(*best_pairs(list(numbers)), strict=True),
        color="#D55E00",
        linewidth=1.2,
        zorder=2,
        label="front of the accuracies",
    )
    ring = {"s": 110, "facecolors": "none", "edgecolors": "#D55E00", "linewidths": 1.2, "zorder": 4}
    axes.scatter(*zip(*numbers, strict=True), **ring, label="on the front of all three, with its number")
    for place, names in numbers.items():
        axes.annotate(", ".join(names), place, xytext=(7, -11), textcoords="offset points", fontsize=8, zorder=5)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _trials(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    trials = content.get("trials") if isinstance(content, dict) else None
    if not isinstance(trials, list) or not all(map(_is_trial, trials)):
        raise UserError(f"{path} is not the result of a search. Run the search again.")
    return trials


def _is_trial(trial: Any) -> bool:
    if not isinstance(trial, dict) or not {"number", "values", "on_front"} <= trial.keys():
        return False
    values = trial["values"]
    return values is None or (
        isinstance(values, dict) and all(isinstance(values.get(name), float | int) for name in _VALUES)
    )
