"""Saved results of training and evaluation, found in a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json

RESULTS_FILE = "results.json"
HISTORY_FILE = "history.json"

_ROW_KEYS = {"variant", "seed", "forget_domain", "unlearning_score", "held_out", "cause_of_zero"}


@dataclass(frozen=True)
class SavedResults:
    """What a folder of runs holds."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Evaluation results, one for each SAE."""
    histories: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """Training history of each variant that recorded one."""


def load_results(folder: Path | str) -> SavedResults:
    """Read `results.json` and every `history.json` below a folder.

    Raises `UserError` if the folder is missing, holds neither, or a file in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"No folder at {folder}. Give the --out folder of a demo, train or eval run.")
    rows = _rows(folder / RESULTS_FILE) if (folder / RESULTS_FILE).is_file() else []
    # Checkpoints carry a history of their own, of the same run.
    paths = [path for path in sorted(folder.rglob(HISTORY_FILE)) if "checkpoints" not in path.parts]
    histories = {path.parent.name: records for path in paths if (records := _records(path))}
    if not rows and not paths:
        raise UserError(
            f"{folder} holds neither {RESULTS_FILE} nor a {HISTORY_FILE}. Give the --out folder of a finished run."
        )
    return SavedResults(rows, histories)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _ROW_KEYS for row in rows):
        raise UserError(f"{path} is not a list of evaluation results. Run the evaluation again.")
    return rows


def _records(path: Path) -> list[dict[str, float]]:
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) and "step" in record for record in records):
        raise UserError(f"{path} is not a training history. Run the training again.")
    return records
