"""Trials made by hand."""

from pathlib import Path

from sae_lens_contrastive.search.trials import Objectives, TrialRecord
from sae_lens_contrastive.unlearning.output import SettingResult

SEARCHES = Path(__file__).parents[2] / "configs" / "search"
K, COEFFICIENT = "sae.k", "sae.loss_terms.forget_margin.coefficient"


class HandMade:
    """Trials whose outcome is a formula of their values; number 3 fails, and one may be interrupted."""

    def __init__(self, interrupt_at=None, fail=(3,)):
        self.ran, self.interrupt_at, self.fail = [], interrupt_at, fail

    def __call__(self, _search, _out):
        return self

    def run(self, number, params):
        if number == self.interrupt_at:
            raise KeyboardInterrupt
        self.ran.append(number)
        values = setting = None
        if number not in self.fail:
            forget, retain = params[COEFFICIENT] / 10, 1 - 1 / params[K]
            values = Objectives(forget_accuracy=forget, retain_accuracy=retain, explained_variance=params[K] / 40)
            setting = settings((forget, retain))[0]
        error = None if values else f"k is {params[K]}."
        return TrialRecord(number=number, params=params, values=values, setting=setting, error=error, seconds=1.0)


def settings(*accuracies, **changes):
    named = {"selector": "firing_rate", "selector_options": {}, "intervention": "zero", "intervention_options": {}}
    facts = {**named, "n_features": 1, "n_surviving": 9, "n_selected": 1, **changes}
    return [SettingResult(**facts, forget_accuracy=forget, retain_accuracy=retain) for forget, retain in accuracies]
