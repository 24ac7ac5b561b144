"""What NSGA-II proposes next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.search.spec import Dimension
from sae_lens_contrastive.search.trials import Objectives

OBJECTIVES = {"forget_accuracy": "minimize", "retain_accuracy": "maximize", "explained_variance": "maximize"}
"""What is optimised, and in which direction."""


class Proposals:
    """What NSGA-II proposes next, given the outcomes so far (Deb et al. 2002, doi:10.1109/4235.996017).

    Proposals depend on the seed and on the outcomes told so far, on nothing else: a study told the same outcomes again
    makes the same proposals. So it lives in memory, and an interrupted search tells it the saved trials anew.
    """

    def __init__(self, space: Mapping[str, Dimension], population_size: int, seed: int) -> None:
        self._optuna = import_optuna()
        self._space = {key: distribution(self._optuna, dimension) for key, dimension in space.items()}
        self._population_size = population_size
        self._n_measured = 0
        sampler = self._optuna.samplers.NSGAIISampler(population_size=population_size, seed=seed)
        self._study = self._optuna.create_study(directions=list(OBJECTIVES.values()), sampler=sampler)
        self._untold: deque[Any] = deque()

    def ask(self) -> dict[str, Any]:
        """Values of the varied keys for the next trial."""
        trial = self._study.ask(self._space)
        self._untold.append(trial)
        return {key: trial.params[key] for key in self._space}

    def tell(self, values: Objectives | None) -> None:
        """The outcome of the first trial that was asked for and not told yet; None if it failed."""
        trial = self._untold.popleft()
        if values is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, [getattr(values, name) for name in OBJECTIVES])
            self._n_measured += 1

    def left_in_generation(self) -> int:
        """Trials that can be asked for before an outcome that is not told yet has a say in what is proposed."""
        return self._population_size - self._n_measured % self._population_size - len(self._untold)

    def front(self) -> set[int]:
        """Numbers of the trials that no other dominates."""
        return {trial.number for trial in self._study.best_trials}


def check_same(number: int, there: Mapping[str, Any], proposed: Mapping[str, Any], out: Path) -> None:
    """Raise `UserError` if a saved trial is not what is proposed now; the last digits may differ between machines."""
    for key, value in proposed.items():
        close = isinstance(value, float) and isinstance(there.get(key), float) and math.isclose(value, there[key])
        if not close and there.get(key) != value:
            raise UserError(
                f"Trial {number} in {out} has {key} {there.get(key)!r}, but this version of Optuna proposes {value!r}. "
                "Continue with the version that the search was begun with, or give another folder with --out."
            )


def import_optuna() -> ModuleType:
    """Optuna; `UserError` names the extra if it is not installed."""
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


def distribution(optuna: Any, dimension: Dimension) -> Any:
    """Values that a key may take, as Optuna draws from them."""
    kinds = optuna.distributions
    if dimension.choices:
        return kinds.CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.int:
        return kinds.IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return kinds.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
