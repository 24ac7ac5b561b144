"""What a search proposed and was told, in a file that Optuna reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.search.proposals import OBJECTIVES, Proposals, check_same, distribution, import_optuna
from sae_lens_contrastive.search.spec import Dimension
from sae_lens_contrastive.search.trials import Objectives
from sae_lens_contrastive.sweep.spec import SweptSearch

JOURNAL_FILE = "optuna_journal.log"
STUDY_NAME = "sweep"


class JournaledSearch:
    """NSGA-II whose trials are written to Optuna's journal, a line of JSON each time, before they are begun.

    A search that goes on reads what it proposed and was told from there. It proposes what the command `search` would,
    given the same outcomes: the trials of a generation do not depend on each other, so they can be done at once.

    Raises `UserError` if Optuna is not installed, the file is no journal, or holds other proposals than this version of
    Optuna makes.
    """

    def __init__(self, search: SweptSearch, space: Mapping[str, Dimension], out: Path) -> None:
        self._optuna = optuna = import_optuna()
        self._proposals = Proposals(space, search.population_size, search.seed)
        self._distributions = {key: distribution(optuna, dimension) for key, dimension in space.items()}
        self._n_trials = search.n_trials
        self.trials: list[dict[str, Any]] = []
        """Values of the varied keys of every trial, by number."""
        self.n_told = 0
        """Trials whose outcome is known, the first of all."""
        path = out / JOURNAL_FILE
        _leave_whole(path)
        try:
            backend = optuna.storages.journal.JournalFileBackend(str(path))
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=STUDY_NAME,
                directions=list(OBJECTIVES.values()),
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no journal of Optuna: {first_line(error)} Give another folder.") from None
        for trial in self._study.get_trials(deepcopy=False):
            check_same(trial.number, trial.params, self._proposals.ask(), out)
            self.trials.append(dict(trial.params))
            if trial.state.is_finished():
                named = dict(zip(OBJECTIVES, trial.values or (), strict=False))
                self._proposals.tell(Objectives(**named) if named else None)
                self.n_told += 1

    def propose(self) -> list[int]:
        """Numbers of the trials to do now: those that are not told yet and what is left of their generation."""
        n_more = min(self._proposals.left_in_generation(), self._n_trials - len(self.trials))
        for _ in range(n_more):
            params = self._proposals.ask()
            kinds = self._optuna.trial
            trial = kinds.create_trial(state=kinds.TrialState.RUNNING, params=params, distributions=self._distributions)
            self._study.add_trial(trial)
            self.trials.append(params)
        return list(range(self.n_told, len(self.trials)))

    def tell(self, values: Objectives | None) -> None:
        """The outcome of the first trial that is not told yet; None if it failed."""
        if values is None:
            self._study.tell(self.n_told, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self.n_told, [getattr(values, name) for name in OBJECTIVES])
        self._proposals.tell(values)
        self.n_told += 1


def _leave_whole(path: Path) -> None:
    """Take away what a killed process left: its lock, and a last line without its end.

    Only one process at a time works in the folder of a sweep.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
