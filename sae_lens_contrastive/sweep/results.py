"""What a sweep has found so far: a row for each job, and the trials that no other dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report.pareto import PARETO_FILE
from sae_lens_contrastive.runs import RESULTS_FILE
from sae_lens_contrastive.search.proposals import OBJECTIVES
from sae_lens_contrastive.search.trials import Objectives, best_tradeoff
from sae_lens_contrastive.sweep.jobs import Job, JobResult
from sae_lens_contrastive.unlearning.output import SettingResult

Results = Mapping[str, JobResult]
"""How jobs ended, by digest."""


@dataclass(frozen=True)
class SweptTrial:
    """A trial with its jobs."""

    number: int
    """From 0, in the order of the grid or of the search."""
    params: dict[str, Any]
    """Values of the varied keys."""
    jobs: tuple[Job, ...]
    """One for each seed; none if the values are impossible together."""
    impossible: str | None = None
    """Why they are."""

    def has_ended(self, results: Results) -> bool:
        """Whether every job has."""
        return all(job.digest in results for job in self.jobs)

    def error(self, results: Results) -> str | None:
        """Why the trial failed, once it has ended."""
        errors = (self.impossible, *(results[job.digest].error for job in self.jobs))
        return next((error for error in errors if error is not None), None)

    def objectives(self, results: Results) -> Objectives | None:
        """What the trial is judged by, the mean over its seeds; None if a job failed or the model knows too little."""
        found = []
        for job in self.jobs:
            row = results[job.digest].row
            if row is None or not row["frontier"]:
                return None
            setting = best_tradeoff([SettingResult.model_validate(each) for each in row["frontier"]])
            found.append((setting.forget_accuracy, setting.retain_accuracy, row["explained_variance"]))
        if not found:
            return None
        forget, retain, variance = (fmean(values) for values in zip(*found, strict=True))
        return Objectives(forget_accuracy=forget, retain_accuracy=retain, explained_variance=variance)


def write_results(out: Path, trials: Sequence[SweptTrial], results: Results) -> None:
    """Write `results.json`, a row for each job that is done, and `pareto.json`, a record for each trial that ended."""
    rows = [
        {**row, "trial": trial.number, "job": job.id}
        for trial in trials
        for job in trial.jobs
        if job.digest in results and (row := results[job.digest].row) is not None
    ]
    write_json(out / RESULTS_FILE, rows)
    ended = [trial for trial in trials if trial.has_ended(results)]
    values = {trial.number: trial.objectives(results) for trial in ended}
    front = nondominated({number: each for number, each in values.items() if each is not None})
    records = [
        {
            "number": trial.number,
            "params": trial.params,
            "values": None if (measured := values[trial.number]) is None else measured.model_dump(),
            "error": trial.error(results),
            "seconds": sum(results[job.digest].seconds for job in trial.jobs),
            "on_front": trial.number in front,
            "jobs": [job.id for job in trial.jobs],
        }
        for trial in ended
    ]
    write_json(out / PARETO_FILE, {"objectives": OBJECTIVES, "trials": records})


def job_records(trials: Sequence[SweptTrial], results: Results) -> list[dict[str, Any]]:
    """Every job in short, those that failed included, for machines."""
    kept = ("variant", "unlearning_score", "held_out", "cause_of_zero", "explained_variance", "l0")
    return [
        {
            "trial": trial.number,
            "params": trial.params,
            "seed": job.run.seed,
            "job": job.id,
            **({key: row[key] for key in kept} if (row := results[job.digest].row) is not None else {}),
            **results[job.digest].model_dump(include={"error", "n_failures", "node", "seconds"}),
        }
        for trial in trials
        for job in trial.jobs
    ]


def nondominated(values: Mapping[int, Objectives]) -> set[int]:
    """Trials that no other is at least as good as in every objective and better than in one."""
    signs = {name: 1 if direction == "maximize" else -1 for name, direction in OBJECTIVES.items()}
    gains = {number: tuple(s * getattr(each, name) for name, s in signs.items()) for number, each in values.items()}

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    return {number for number, own in gains.items() if not any(dominates(other, own) for other in gains.values())}
