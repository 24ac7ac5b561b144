"""NSGA-II over trials, with everything that it has learnt in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.report.pareto import PARETO_FILE, write_pareto_front
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.search.spec import Dimension, Search
from sae_lens_contrastive.search.trials import Objectives, TrialRecord, TrialRunner
from sae_lens_contrastive.training.plan import Plan, duration_text, plan_runs

OBJECTIVES = {"forget_accuracy": "minimize", "retain_accuracy": "maximize", "explained_variance": "maximize"}
"""What is optimised, and in which direction."""
TRIALS_FOLDER = "trials"
_FIRST_TRIALS = 3


def plan_search(search: Search) -> Plan:
    """What the trials of a search train, were none of its keys varied; loads no weights and writes nothing."""
    trial = plan_runs([search.run])
    seconds = None if trial.seconds is None else trial.seconds * search.n_trials
    keys = ", ".join(search.space)
    text = f"{trial.text}\n\n{search.n_trials} trials that vary {keys}: {duration_text(seconds)} of training"
    return replace(trial, text=text, seconds=seconds)


def run_search(search: Search, out: Path | str) -> list[TrialRecord]:
    """Run the trials that `out` does not hold yet and return all of them.

    Each trial is a training run `trials/<number>`; `pareto.json` holds all trials and is written after each, so that an
    interrupted search goes on where it stopped, as if it had never been interrupted. At the end `pareto_front.png` is
    drawn.

    Raises `UserError` if Optuna is not installed, `out` holds something else, the first trials all fail, or the model
    lacks the hook or knows too few of the questions.
    """
    proposals = Proposals(search.space, search.population_size, search.seed)
    out = claim_folder(out, "search", search.identity())
    saved = _saved(out / PARETO_FILE)
    records: list[TrialRecord] = []
    for record in saved:
        _check_same(record, proposals.ask(), out)
        proposals.tell(record.values)
        records.append(record)
    _check_that_something_works(records, search.n_trials)
    runner: TrialRunner | None = None
    for number in range(len(saved), search.n_trials):
        runner = runner or TrialRunner(search, out / TRIALS_FOLDER)
        record = runner.run(number, proposals.ask())
        proposals.tell(record.values)
        front = proposals.front()
        records = [r.model_copy(update={"on_front": r.number in front}) for r in (*records, record)]
        trials = [r.model_dump(mode="json") for r in records]
        write_json(out / PARETO_FILE, {"objectives": OBJECTIVES, "trials": trials})
        print(_progress(records, len(saved), search.n_trials), flush=True)
        _check_that_something_works(records, search.n_trials)
    write_pareto_front(out)
    return records


class Proposals:
    """What NSGA-II proposes next, given the outcomes so far (Deb et al. 2002, doi:10.1109/4235.996017).

    Proposals depend on the seed and on the outcomes told so far, on nothing else: a study told the same outcomes again
    makes the same proposals. So it lives in memory, and an interrupted search tells it the saved trials anew.
    """

    def __init__(self, space: Mapping[str, Dimension], population_size: int, seed: int) -> None:
        self._optuna = _import_optuna()
        self._space = {key: _distribution(self._optuna, dimension) for key, dimension in space.items()}
        sampler = self._optuna.samplers.NSGAIISampler(population_size=population_size, seed=seed)
        self._study = self._optuna.create_study(directions=list(OBJECTIVES.values()), sampler=sampler)
        self._trial: Any = None

    def ask(self) -> dict[str, Any]:
        """Values of the varied keys for the next trial."""
        self._trial = self._study.ask(self._space)
        return {key: self._trial.params[key] for key in self._space}

    def tell(self, values: Objectives | None) -> None:
        """The outcome of the trial asked for last; None if it failed."""
        if values is None:
            self._study.tell(self._trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._trial, [getattr(values, name) for name in OBJECTIVES])

    def front(self) -> set[int]:
        """Numbers of the trials that no other dominates."""
        return {trial.number for trial in self._study.best_trials}


def _import_optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "A search needs Optuna, which is not installed. Install the extra 'search': "
            "pip install 'sae-lens-contrastive[search]'"
        ) from None
    # Its own lines on every study and trial say less than the progress printed here.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.choices:
        return kinds.CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.int:
        return kinds.IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _saved(path: Path) -> list[TrialRecord]:
    if not path.is_file():
        return []
    try:
        return [TrialRecord.model_validate(trial) for trial in read_json(path)["trials"]]
    except (ValidationError, TypeError, KeyError):
        raise UserError(f"{path} holds no trials of a search. Give another folder with --out.") from None


def _check_same(record: TrialRecord, proposed: Mapping[str, Any], out: Path) -> None:
    """Raise `UserError` if a saved trial is not what is proposed now; the last digits may differ between machines."""
    for key, value in proposed.items():
        there = record.params.get(key)
        close = isinstance(value, float) and isinstance(there, float) and math.isclose(value, there)
        if not close and there != value:
            raise UserError(
                f"Trial {record.number} in {out} has {key} {there!r}, but this version of Optuna proposes {value!r}. "
                "Continue with the version that the search was begun with, or give another folder with --out."
            )


def _check_that_something_works(records: Sequence[TrialRecord], n_trials: int) -> None:
    first = records[:_FIRST_TRIALS]
    if len(first) == min(_FIRST_TRIALS, n_trials) and all(record.values is None for record in first):
        raise UserError(
            f"The first {len(first)} trials failed, the first of them so: {first[0].error} Change the space or the run."
        )


def _progress(records: Sequence[TrialRecord], n_saved: int, n_trials: int) -> str:
    record, new = records[-1], records[n_saved:]
    outcome = f"failed: {record.error}"
    if record.values is not None:
        outcome = (
            f"forget accuracy {record.values.forget_accuracy:.3f}, retain accuracy "
            f"{record.values.retain_accuracy:.3f}, explained variance {record.values.explained_variance:.3f}"
        )
    seconds = sum(r.seconds for r in new) / len(new) * (n_trials - len(records))
    left = f"; about {duration_text(seconds)} left" if len(records) < n_trials else ""
    return f"trial {record.number} ({len(records)} of {n_trials}): {outcome}{left}"
