"""One trial of a search: train an SAE, sweep it on the `select` questions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import check_hook, load_model
from sae_lens_contrastive.search.spec import Search, Value, with_values
from sae_lens_contrastive.training import load_summary, train_runs
from sae_lens_contrastive.unlearning import SaeUnderTest, check_spec
from sae_lens_contrastive.unlearning.evaluate import select_frontier, selection_data
from sae_lens_contrastive.unlearning.output import SettingResult
from sae_lens_contrastive.unlearning.shared import UNEDITED_FOLDER, HookData


class Objectives(StrictModel):
    """What a trial is judged by; the accuracies are those of its setting on the `select` questions."""

    forget_accuracy: float
    """Share of the known forget questions still answered right; the lower the better."""
    retain_accuracy: float
    """Share of the known retain questions still answered right; the higher the better."""
    explained_variance: float
    """Share of the variance of the activations that the SAE reconstructs; the higher the better."""


class TrialRecord(StrictModel):
    """One trial, as it is saved."""

    number: int
    """Number of the trial, from 0; its run is `trials/<number>`."""
    params: dict[str, Value]
    """Values of the varied keys."""
    values: Objectives | None
    """What was measured; None if the trial failed."""
    setting: SettingResult | None
    """The setting of the accuracies; None if the trial failed."""
    error: str | None
    """Why it failed."""
    seconds: float
    """Time of training and evaluation."""
    on_front: bool = False
    """Whether no other trial is at least as good in every objective and better in one."""


def trial_folder(number: int) -> str:
    """Name of a trial's folder."""
    return f"{number:03d}"


def best_tradeoff(frontier: Sequence[SettingResult]) -> SettingResult:
    """The setting with the highest retain_accuracy - forget_accuracy: it stands for its SAE in the search.

    Ties: higher retain accuracy, then fewer features, then the order of the sweep.
    """
    return max(frontier, key=lambda s: (s.retain_accuracy - s.forget_accuracy, s.retain_accuracy, -s.n_features))


class TrialRunner:
    """Trains and measures trials on one model; what their evaluations share is computed once for each hook.

    Raises `UserError` if the model lacks the hook of the run or knows too few of the questions.
    """

    def __init__(self, search: Search, out: Path) -> None:
        self.search = search
        self.out = out
        run, spec = search.run, search.spec
        self._model = load_model(run.model, dtype=run.dtype, device=run.device)
        same = (run.model, run.dtype, run.device) == (spec.model, spec.dtype, spec.device)
        # An SAE of a base model may be evaluated on its instruction-tuned sibling.
        self._edited = self._model if same else load_model(spec.model, dtype=spec.dtype, device=spec.device)
        self._data: dict[str, HookData] = {}
        check_hook(self._model, run.hook_name, run.sae.get("d_in"))
        self._data_of(run.hook_name)

    def run(self, number: int, params: Mapping[str, Any]) -> TrialRecord:
        """Train and measure one trial; a `UserError` makes it a failed one.

        Raises `UserError` for what is no fault of the trial, such as a full disk or a text that is gone: it can be run
        again.
        """
        started = time.perf_counter()
        values, setting, failure = None, None, None
        try:
            values, setting = self._measure(number, params)
        except UserError as error:
            # With a cause it is the disk's or the hub's, which may do better the next time.
            if error.__cause__ is not None:
                raise
            # An input that has gone since the search began is no fault of the trial either.
            self.search.run.check()
            check_spec(self.search.spec)
            failure = str(error)
        return TrialRecord(
            number=number,
            params=dict(params),
            values=values,
            setting=setting,
            error=failure,
            seconds=round(time.perf_counter() - started, 2),
        )

    def _measure(self, number: int, params: Mapping[str, Any]) -> tuple[Objectives, SettingResult]:
        name = trial_folder(number)
        run = with_values(self.search.run, {**params, "variant": name})
        (folder,) = train_runs([run], self.out, self._model)
        explained_variance = load_summary(folder)["explained_variance"]
        if explained_variance is None:
            raise UserError("The explained variance is not a finite number: training diverged.")
        subject = SaeUnderTest(variant=name, seed=run.seed, path=folder / "sae")
        setting = best_tradeoff(select_frontier(name, subject, self._data_of(run.hook_name)))
        values = Objectives(
            forget_accuracy=setting.forget_accuracy,
            retain_accuracy=setting.retain_accuracy,
            explained_variance=explained_variance,
        )
        return values, setting

    def _data_of(self, hook_name: str) -> HookData:
        if hook_name not in self._data:
            cache = self.out.parent / UNEDITED_FOLDER
            self._data[hook_name] = selection_data(self._edited, hook_name, self.search.spec, self.search.inputs, cache)
        return self._data[hook_name]
