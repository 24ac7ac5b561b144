"""Draw the documents' figure from the committed results of the recipe."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from recipe_tables import RMU, ROOT, Row, methods

from sae_lens_contrastive.files import file_sha256
from sae_lens_contrastive.report.bars import Bar, draw_bars
from sae_lens_contrastive.report.panels import COLOURS, seed_lines, tidy
from sae_lens_contrastive.report.relearning import accuracy_by_step
from sae_lens_contrastive.report.seeds import Spread

RECIPE = ROOT / "evals/results/recipe.json"
FIGURE = ROOT / "docs/images/countries.svg"

_COLOURS = {
    "run 5": COLOURS[0],
    "RMU": COLOURS[1],
    "RMU, no retain gate": COLOURS[4],
    "baseline, clamp": COLOURS[6],
    "baseline, gated": COLOURS[2],
}
_PANEL_INCHES = 2.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only see whether it was drawn from these results")
    check = parser.parse_args().check
    drawn_from = " ".join(f"{path.name} {file_sha256(path)}" for path in (RECIPE, RMU))
    if not check:
        found = methods(json.loads(RECIPE.read_text(encoding="utf-8")))
        # matplotlib names the parts of a drawing at random unless told by what.
        with mpl.rc_context({"svg.hashsalt": FIGURE.name}):
            figure = draw({name: found[name] for name in _COLOURS if found[name]})
            figure.savefig(FIGURE, metadata={"Date": None, "Description": drawn_from})
    elif not FIGURE.is_file() or drawn_from not in FIGURE.read_text(encoding="utf-8"):
        print(
            f"{FIGURE.name} is missing or was drawn from other results. Run python scripts/{Path(__file__).name}",
            file=sys.stderr,
        )
        return 1
    return 0


def draw(named: dict[str, list[Row]]) -> Figure:
    """What each method forgets, what neighbouring domains lose by it, and how soon it comes back."""
    figure = Figure(figsize=(11, 3), layout="constrained")
    forgetting, near, relearning = figure.subplots(1, 3, width_ratios=[1.05, 1, 1.15])
    _bars(forgetting, named, lambda row: row["held_out"]["forgetting"], most=1, number="{:.2f}")
    forgetting.set_xticks([0, 0.5, 1])
    forgetting.set_title("Countries forgotten, held out\n(1 = answers at chance)", fontsize=10)
    _bars(near, named, lambda row: 100 * (1 - row["near_accuracy"]), most=100, number="{:.0f} %")
    near.set_yticks([])
    near.set_title("Answers lost in neighbouring domains", fontsize=10)
    for name, rows in named.items():
        measured = [curve for row in rows if (curve := row["measures"]["relearning"])]
        seed_lines(relearning, [accuracy_by_step(curve) for curve in measured], label=name, color=_COLOURS[name])
    chance = next(iter(named.values()))[0]["held_out"]["chance"]
    relearning.axhline(chance, color="#666666", linestyle="--", linewidth=1, zorder=0)
    relearning.annotate("chance", (32, chance), (0, -3), textcoords="offset points", ha="right", va="top", fontsize=8)
    relearning.set_xscale("symlog", linthresh=1, linscale=0.4)
    relearning.set_xticks([0, 1, 2, 4, 8, 16, 32], ["0", "1", "2", "4", "8", "16", "32"])
    relearning.set_xticks([], minor=True)
    relearning.set_xlim(-0.02, 34)
    relearning.set_ylim(0, 1.03)
    relearning.set_title("Accuracy on countries after fine-tuning steps\non other text about countries", fontsize=10)
    relearning.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(0, 0.62))
    for axes in figure.axes:
        tidy(axes)
    return figure


def _bars(axes: Axes, named: dict[str, list[Row]], value: Callable[[Row], float], *, most: float, number: str) -> None:
    """A bar for each method; an interval ends where the quantity does."""
    bars: list[Bar | None] = []
    for rows in named.values():
        spread = Spread(tuple(value(row) for row in rows))
        low, high = spread.interval
        bars.append(Bar(spread, (max(0.0, low), min(most, high))))
    draw_bars(axes, list(named), {"": bars}, number, _PANEL_INCHES)
    for patch, name in zip(axes.patches, named, strict=True):
        patch.set_color(_COLOURS[name])


if __name__ == "__main__":
    sys.exit(main())
