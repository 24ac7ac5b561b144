"""Saved results of training and evaluation, found in a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.report.saved_rows import checked_records, checked_rows, checked_summary
from sae_lens_contrastive.report.tracker_records import TrackerRecords, load_trackers
from sae_lens_contrastive.runs import RESULTS_FILE

HISTORY_FILE = "history.json"
SUMMARY_FILE = "summary.json"

# A run of a study: <setting>/seed<k>/train/<variant>.
_STUDY_RUN = re.compile(r"(?:^|.*/)(?P<setting>[^/]+)/seed(?P<seed>\d+)/train/[^/]+$")


@dataclass(frozen=True)
class SavedRun:
    """What one training run recorded."""

    variant: str
    """Named set of loss terms, trackers and surgeries."""
    seed: int = 0
    """Seed it was trained with."""
    setting: str = ""
    """Setting of the study it belongs to; empty outside a study."""
    history: Sequence[dict[str, float]] = ()
    """Losses and metrics against step."""
    trackers: TrackerRecords = field(default_factory=TrackerRecords)
    """What its trackers and surgeries recorded."""

    def recorded(self, name: str) -> dict[int, float]:
        """{step: value} of a number in the history, where it was recorded."""
        return {int(record["step"]): record[name] for record in self.history if record.get(name) is not None}

    def tracked(self, part: str, value: Callable[[Any], float | None]) -> dict[int, float]:
        """{step: value} over the records of a tracker, where there is a value."""
        records = getattr(self.trackers, part)
        return {record.step: found for record in records if (found := value(record)) is not None}


@dataclass(frozen=True)
class SavedResults:
    """What a folder of runs holds."""

    rows: Sequence[dict[str, Any]] = ()
    """Evaluation results, one for each SAE."""
    runs: Sequence[SavedRun] = ()
    """Training runs that recorded a history."""

    @property
    def settings(self) -> list[str]:
        """Settings in order of the rows, then of the runs."""
        return _distinct([*(setting_of(row) for row in self.rows), *(run.setting for run in self.runs)])

    @property
    def variants(self) -> list[str]:
        """Variants in order of the rows, then of the runs."""
        return _distinct([*(row["variant"] for row in self.rows), *(run.variant for run in self.runs)])

    def rows_of(self, setting: str) -> dict[str, list[dict[str, Any]]]:
        """Rows of each variant in a setting, one for each seed."""
        rows = [row for row in self.rows if setting_of(row) == setting]
        return {
            variant: found for variant in self.variants if (found := [row for row in rows if row["variant"] == variant])
        }

    def runs_of(self, setting: str) -> dict[str, list[SavedRun]]:
        """Runs of each variant in a setting, one for each seed."""
        runs = [run for run in self.runs if run.setting == setting]
        return {
            variant: sorted(found, key=lambda run: run.seed)
            for variant in self.variants
            if (found := [run for run in runs if run.variant == variant])
        }

    def runs_with(self, *parts: str) -> dict[str, dict[str, list[SavedRun]]]:
        """{setting: {variant: runs}} of the runs in which one of these trackers recorded something."""
        found = {}
        for setting in self.settings:
            runs = {
                variant: recorded
                for variant, seeds in self.runs_of(setting).items()
                if (recorded := [run for run in seeds if any(getattr(run.trackers, part) for part in parts)])
            }
            if runs:
                found[setting] = runs
        return found

    def title_of(self, setting: str) -> str:
        """Name of a setting, with the dictionary size and the layer if all its rows share one."""
        rows = [row for row in self.rows if setting_of(row) == setting]
        facts = []
        for key in ("d_sae", "layer"):
            values = {row.get(key) for row in rows} - {None}
            facts += [f"{key} {value}" for value in values if len(values) == 1]
        return ", ".join([setting, *facts]) if setting else ""


def setting_of(row: dict[str, Any]) -> str:
    """Setting of a study that a row belongs to; empty outside a study."""
    return row.get("study_setting", "")


def load_results(folder: Path | str) -> SavedResults:
    """Read `results.json`, and `history.json` with its neighbours in every run folder below a folder.

    Raises `UserError` if the folder is missing, holds neither, or a file in it is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"No folder at {folder}. Give the --out folder of a demo, train or eval run.")
    results = folder / RESULTS_FILE
    rows = checked_rows(read_json(results), results) if results.is_file() else []
    # Checkpoints carry a history of their own, of the same run.
    found = sorted(folder.rglob(HISTORY_FILE))
    paths = [path for path in found if "checkpoints" not in path.relative_to(folder).parts]
    if not rows and not paths:
        raise UserError(
            f"{folder} holds neither {RESULTS_FILE} nor a {HISTORY_FILE}. Give the --out folder of a finished run."
        )
    runs = {path.parent.relative_to(folder).as_posix(): _run(path, folder) for path in paths}
    return SavedResults(rows, [run for run in _told_apart(runs) if run.history])


def _run(path: Path, folder: Path) -> SavedRun:
    study_run = _STUDY_RUN.match(path.parent.relative_to(folder).as_posix())
    setting, seed = (study_run["setting"], int(study_run["seed"])) if study_run else ("", 0)
    summary = {"variant": path.parent.name, "seed": seed}
    if (path.parent / SUMMARY_FILE).is_file():
        summary = checked_summary(read_json(path.parent / SUMMARY_FILE), path.parent / SUMMARY_FILE)
    records = checked_records(read_json(path), path)
    return SavedRun(summary["variant"], summary["seed"], setting, records, load_trackers(path.parent))


def _told_apart(runs: dict[str, SavedRun]) -> list[SavedRun]:
    """Runs that nothing but their folder tells apart take its path for their name."""
    times = Counter((run.setting, run.variant, run.seed) for run in runs.values())
    return [
        run if times[run.setting, run.variant, run.seed] == 1 else replace(run, variant=path)
        for path, run in runs.items()
    ]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
