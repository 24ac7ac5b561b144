import json
from pathlib import Path

import pytest
from made_searches import K, settings

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.search import Dimension, resolve_search, run_search
from sae_lens_contrastive.search import trials as trials_module
from sae_lens_contrastive.search.run import Proposals
from sae_lens_contrastive.search.trials import Objectives, TrialRunner, best_tradeoff


def test_an_impossible_combination_fails_alone(search_file, monkeypatch):
    space = {K: {"choices": [8, 64]}, "sae.d_sae": {"choices": [32, 128]}}
    search = resolve_search(search_file(space=space))
    for name in ("load_model", "check_hook", "selection_data"):
        monkeypatch.setattr(trials_module, name, lambda *_args, **_kwargs: None)
    record = TrialRunner(search, Path("out")).run(5, {K: 64, "sae.d_sae": 32})
    assert (record.number, record.values, record.setting) == (5, None, None)
    assert record.error == "k is 64; it must be from 1 to d_sae (32)."


def test_what_is_no_fault_of_a_trial_ends_the_search_and_the_trial_is_run_again(search_file, monkeypatch):
    search = resolve_search(search_file(n_trials=2))
    for name in ("load_model", "check_hook", "selection_data"):
        monkeypatch.setattr(trials_module, name, lambda *_args, **_kwargs: None)
    full = UserError("There is no room.")
    full.__cause__ = OSError(28, "No space left on device")
    outcomes, begun = [UserError("The batch of step 3 is not finite."), full, UserError("k does not fit.")], []

    def fail(runs, *_others):
        begun.append(runs[0].variant)
        raise outcomes[len(begun) - 1]

    monkeypatch.setattr(trials_module, "train_runs", fail)
    with pytest.raises(UserError, match="There is no room"):
        run_search(search, "out")
    assert saved_errors() == ["The batch of step 3 is not finite."]
    with pytest.raises(UserError, match="The first 2 trials failed"):
        run_search(search, "out")
    assert saved_errors() == ["The batch of step 3 is not finite.", "k does not fit."]
    assert begun == ["000", "001", "001"]


@pytest.mark.parametrize(
    "reading",
    [{"overrides": {"corpora": {"general": ["mine.txt"]}}}, {"spec_overrides": {"forget_corpora": ["mine.txt"]}}],
    ids=["training", "evaluation"],
)
def test_a_text_that_is_gone_spends_no_trials(search_file, monkeypatch, reading):
    text = Path("mine.txt")
    text.write_text("A river flows on and on.\n")
    search = resolve_search(search_file(n_trials=4, **reading))
    for name in ("load_model", "check_hook", "selection_data"):
        monkeypatch.setattr(trials_module, name, lambda *_args, **_kwargs: None)
    begun = []

    def fail(runs, *_others):
        begun.append(runs[0].variant)
        if len(begun) == 2:
            text.unlink()
        raise UserError("The batch of step 3 is not finite.")

    monkeypatch.setattr(trials_module, "train_runs", fail)
    with pytest.raises(UserError, match=r"No corpus at 'mine\.txt'"):
        run_search(search, "out")
    assert begun == ["000", "001"]
    assert saved_errors() == ["The batch of step 3 is not finite."]
    text.write_text("A river flows on and on.\n")
    with pytest.raises(UserError, match="The first 3 trials failed"):
        run_search(search, "out")
    assert begun[2:] == ["001", "002"]


def saved_errors():
    return [trial["error"] for trial in json.loads(Path("out/pareto.json").read_text())["trials"]]


def test_the_front_of_values_made_by_hand():
    proposals = Proposals({"x": Dimension(low=0, high=1)}, 4, 0)
    outcomes = [
        (0.2, 0.9, 0.8),
        (0.3, 0.8, 0.7),  # worse than the first in everything
        (0.1, 0.5, 0.8),  # forgets more
        None,
        (0.2, 0.9, 0.8),  # equal to the first
        (0.9, 0.9, 0.9),  # reconstructs better
        (0.2, 0.9, 0.7),  # as the first, but reconstructs worse
    ]
    for outcome in outcomes:
        proposals.ask()
        names = ("forget_accuracy", "retain_accuracy", "explained_variance")
        proposals.tell(outcome and Objectives(**dict(zip(names, outcome, strict=True))))
    assert proposals.front() == {0, 2, 4, 5}


def test_a_trial_stands_for_its_best_tradeoff():
    frontier = settings((1.0, 1.0), (0.5, 0.9), (0.3, 0.6))
    assert best_tradeoff(frontier) == frontier[1]
    tied = [*settings((0.5, 0.75)), *settings((0.75, 1.0), n_features=5), *settings((0.75, 1.0))]
    assert best_tradeoff(tied) == tied[2]
