"""Every figure for which a folder holds data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sae_lens_contrastive.files import written_whole
from sae_lens_contrastive.report.frontier import draw_frontier
from sae_lens_contrastive.report.groups import draw_clusters, draw_correlation_history
from sae_lens_contrastive.report.importance import draw_importance
from sae_lens_contrastive.report.over_steps import draw_curriculum, draw_stability, draw_training_losses
from sae_lens_contrastive.report.relearning import draw_relearning
from sae_lens_contrastive.report.results import SavedResults
from sae_lens_contrastive.report.scores import draw_unlearning_scores
from sae_lens_contrastive.report.thresholds import draw_feature_thresholds

DRAWINGS: dict[str, Callable[[SavedResults], Figure | None]] = {
    "unlearning_scores.png": draw_unlearning_scores,
    "training_losses.png": draw_training_losses,
    "feature_thresholds.png": draw_feature_thresholds,
    "correlation_history.png": draw_correlation_history,
    "clusters.png": draw_clusters,
    "importance.png": draw_importance,
    "stability.png": draw_stability,
    "curriculum.png": draw_curriculum,
    "frontier.png": draw_frontier,
    "relearning.png": draw_relearning,
}
"""What draws each figure; it returns None where there are no data."""


def write_figures(results: SavedResults, folder: Path | str) -> list[Path]:
    """Draw every figure for which there are data and return the files written.

    From the evaluation: `unlearning_scores.png`, `frontier.png` and, if it was measured, `relearning.png`. From the
    training: `training_losses.png`, and, where they were recorded, `correlation_history.png`, `clusters.png`,
    `importance.png`, `stability.png` and `curriculum.png`. From both: `feature_thresholds.png`. Raises `UserError` if
    there is no room for one.
    """
    written = []
    # A dollar sign in a name is no formula.
    with rc_context({"text.parse_math": False}):
        for name, draw in DRAWINGS.items():
            if (figure := draw(results)) is not None:
                written.append(save_figure(figure, Path(folder) / name))
    return written


def save_figure(figure: Figure, path: Path) -> Path:
    """Draw a figure into a PNG file, which appears whole or not at all; `UserError` if there is no room for it."""
    FigureCanvasAgg(figure)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=300)
    return path
