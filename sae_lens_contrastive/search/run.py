"""NSGA-II over trials, with everything that it has learnt in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.report.pareto import PARETO_FILE, write_pareto_front
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.search.proposals import OBJECTIVES, Proposals, check_same
from sae_lens_contrastive.search.spec import Search
from sae_lens_contrastive.search.trials import TrialRecord, TrialRunner
from sae_lens_contrastive.training.plan import Plan, duration_text, plan_runs

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

    Raises `UserError` if Optuna is not installed, `out` holds something else, the first trials all fail, the model
    lacks the hook or knows too few of the questions, or a trial fails by no fault of its own: the next call runs it
    again.
    """
    proposals = Proposals(search.space, search.population_size, search.seed)
    out = claim_folder(out, "search", search.identity())
    saved = _saved(out / PARETO_FILE)
    records: list[TrialRecord] = []
    for record in saved:
        check_same(record.number, record.params, proposals.ask(), out)
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


def _saved(path: Path) -> list[TrialRecord]:
    if not path.is_file():
        return []
    try:
        return [TrialRecord.model_validate(trial) for trial in read_json(path)["trials"]]
    except (ValidationError, TypeError, KeyError):
        raise UserError(f"{path} holds no trials of a search. Give another folder with --out.") from None


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
