"""Saved results as a run of Weights & Biases: a table, the figures, the page, and the files as an artefact."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb

from sae_lens_contrastive.report.results import SavedResults, setting_of
from sae_lens_contrastive.runs import RESULTS_FILE
from sae_lens_contrastive.wandb_session import open_wandb_run, record_table

# An artefact's name is more limited than a folder's.
_NOT_IN_A_NAME = r"[^a-zA-Z0-9_.-]"

_OF_AN_SAE = ("variant", "seed", "unlearning_score")
_OF_HELD_OUT = ("forgetting", "forget_accuracy", "chance", "retain_accuracy")
_IF_KNOWN = ("near_accuracy", "explained_variance", "l0", "cause_of_zero")


def log_report(
    results: SavedResults,
    folder: Path,
    page: Path,
    figures: Sequence[Path],
    *,
    project: str,
    entity: str | None = None,
) -> str:
    """Log what a report shows to a new run, named as the folder; return its name or address.

    Raises `UserError` if W&B refuses.
    """
    name = folder.resolve().name
    run = open_wandb_run(project, entity=entity, name=name, group=name, job_type="report")
    try:
        run.log(
            {
                "results": record_table([_record(row) for row in results.rows]),
                "report": wandb.Html(page.read_text(encoding="utf-8"), inject=False),
                **{f"figures/{figure.stem}": wandb.Image(str(figure)) for figure in figures},
            }
        )
        artifact = wandb.Artifact(f"{re.sub(_NOT_IN_A_NAME, '_', name)}_results", type="results")
        for path in (*_files(folder), page, *figures):
            artifact.add_file(str(path), name=path.relative_to(folder).as_posix())
        run.log_artifact(artifact)
        return run.url or run.id
    finally:
        run.finish()


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """One SAE's numbers, by the names of results.json."""
    held_out = row["held_out"]
    low, high = held_out["ci95"]
    return {
        "setting": setting_of(row),
        **{name: row[name] for name in _OF_AN_SAE},
        **{name: held_out[name] for name in _OF_HELD_OUT},
        "ci95_low": low,
        "ci95_high": high,
        **{name: row.get(name) for name in _IF_KNOWN},
    }


def _files(folder: Path) -> Iterator[Path]:
    """The results and the forget edits that they were found with."""
    if (folder / RESULTS_FILE).is_file():
        yield folder / RESULTS_FILE
    yield from sorted(folder.rglob("forget_edits/*.json"))
