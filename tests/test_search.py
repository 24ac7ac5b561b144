import json
import sys
from pathlib import Path

import pytest
import yaml
from sae_lens import SAE

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.search import Dimension, resolve_search, run_search
from sae_lens_contrastive.search import run as run_module
from sae_lens_contrastive.search import trials as trials_module
from sae_lens_contrastive.search.run import Proposals
from sae_lens_contrastive.search.trials import Objectives, TrialRecord, TrialRunner, best_tradeoff
from sae_lens_contrastive.training import load_summary
from sae_lens_contrastive.unlearning import SaeUnderTest, evaluate_saes
from sae_lens_contrastive.unlearning import shared as shared_module
from sae_lens_contrastive.unlearning.output import SettingResult

ROOT = Path(__file__).parents[1]
SEARCHES = ROOT / "configs" / "search"
K, COEFFICIENT = "sae.k", "sae.loss_terms.forget_margin.coefficient"


@pytest.fixture
def search_file(tmp_path, monkeypatch):
    """Writes the tiny search with changes into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        values = yaml.safe_load((SEARCHES / "tiny.yaml").read_text())
        paths = {key: str((SEARCHES / values[key]).resolve()) for key in ("target", "variant", "spec")}
        Path("search.yaml").write_text(yaml.safe_dump({**values, **paths, **changes}))
        return "search.yaml"

    return write


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(trials_module, "load_model", lambda *_args, **_kwargs: pytest.fail("the model was loaded"))


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


@pytest.fixture
def hand_made(monkeypatch):
    def install(**options):
        runner = HandMade(**options)
        monkeypatch.setattr(run_module, "TrialRunner", runner)
        return runner

    return install


def settings(*accuracies, **changes):
    named = {"selector": "firing_rate", "selector_options": {}, "intervention": "zero", "intervention_options": {}}
    facts = {**named, "n_features": 1, "n_surviving": 9, "n_selected": 1, **changes}
    return [SettingResult(**facts, forget_accuracy=forget, retain_accuracy=retain) for forget, retain in accuracies]


def test_a_search_trains_measures_and_draws(search_file, tiny, monkeypatch, capsys):
    loaded, put = [], set()
    monkeypatch.setattr(trials_module, "load_model", lambda *args, **kwargs: loaded.append(args) or tiny)
    original = shared_module.QuestionEvaluator

    def recording(runner, model, questions, *args, **kwargs):
        put.update(question.split for question in questions)
        return original(runner, model, questions, *args, **kwargs)

    monkeypatch.setattr(shared_module, "QuestionEvaluator", recording)
    file = search_file()
    assert main(["search", file, "--set", "n_trials=3", "--out", "out"]) == 0
    assert len(loaded) == 1
    assert put == {"select"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [f"trial {n} ({n + 1} of 3)" for n in range(3)]
    assert lines[0].endswith(" left")
    assert "trial  forget  retain  explained variance  values" in lines
    assert Path("out/pareto_front.png").stat().st_size > 5000
    saved = json.loads(Path("out/pareto.json").read_text())
    assert saved["objectives"]["forget_accuracy"] == "minimize"
    trials = saved["trials"]
    assert any(trial["on_front"] for trial in trials)

    trial, folder = trials[1], Path("out/trials/001")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["sae"]["k"] == trial["params"][K] == SAE.load_from_disk(folder / "sae").cfg.k
    assert config["sae"]["loss_terms"]["forget_margin"]["coefficient"] == trial["params"][COEFFICIENT]
    spec = resolve_search(file).spec
    (result,) = evaluate_saes(spec, {"x": SaeUnderTest(variant="x", path=folder / "sae")}, None, model=tiny)
    setting = best_tradeoff(result.frontier)
    assert trial["setting"] == {**setting.model_dump(), "forget_accuracy_all": None, "retain_accuracy_all": None}
    assert trial["values"] == {
        "forget_accuracy": setting.forget_accuracy,
        "retain_accuracy": setting.retain_accuracy,
        "explained_variance": load_summary(folder)["explained_variance"],
    }

    # As if killed after the last trial was trained and before it was saved.
    Path("out/pareto.json").write_text(json.dumps({**saved, "trials": trials[:2]}))
    monkeypatch.setattr(
        "sae_lens_contrastive.training.train._train_together", lambda *_args: pytest.fail("trained again")
    )
    assert main(["search", file, "--set", "n_trials=3", "--out", "out"]) == 0
    assert without_time(json.loads(Path("out/pareto.json").read_text())["trials"]) == without_time(trials)


def without_time(trials):
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials]


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(search_file, hand_made, no_model):
    search = resolve_search(search_file(n_trials=12, population_size=3))
    hand_made()
    whole = run_search(search, "whole")
    # The interruption falls into the middle of a generation, after a failed trial.
    first = hand_made(interrupt_at=7)
    with pytest.raises(KeyboardInterrupt):
        run_search(search, "parts")
    assert first.ran == list(range(7))
    second = hand_made()
    assert run_search(search, "parts") == whole
    assert second.ran == list(range(7, 12))
    assert Path("parts/pareto.json").read_bytes() == Path("whole/pareto.json").read_bytes()
    third = hand_made()
    assert run_search(search, "parts") == whole
    assert third.ran == []


def test_a_finished_search_goes_on_with_more_trials(search_file, hand_made):
    hand_made()
    few = run_search(resolve_search(search_file(n_trials=4)), "out")
    runner = hand_made()
    more = run_search(resolve_search(search_file(n_trials=6)), "out")
    assert runner.ran == [4, 5]
    assert [record.params for record in more[:4]] == [record.params for record in few]


def test_the_seed_decides_the_first_generation(search_file, hand_made):
    def params(out, **changes):
        hand_made()
        return [record.params for record in run_search(resolve_search(search_file(**changes)), out)]

    assert params("a", population_size=4) == params("b", population_size=4)
    assert params("a", population_size=4) != params("c", population_size=4, seed=1)


def test_failed_trials_are_recorded_and_do_not_end_the_search(search_file, hand_made, capsys):
    hand_made()
    records = run_search(resolve_search(search_file(n_trials=5)), "out")
    assert [record.values is None for record in records] == [False, False, False, True, False]
    assert records[3].error == f"k is {records[3].params[K]}."
    assert not records[3].on_front
    assert f"trial 3 (4 of 5): failed: {records[3].error}; about 1 s left" in capsys.readouterr().out


def test_a_search_ends_if_its_first_trials_all_fail(search_file, hand_made, capsys):
    file = search_file(n_trials=9)
    runner = hand_made(fail=range(9))
    assert main(["search", file, "--out", "out"]) == 2
    assert "The first 3 trials failed, the first of them so: k is " in capsys.readouterr().err
    assert runner.ran == [0, 1, 2]
    assert [trial["values"] for trial in json.loads(Path("out/pareto.json").read_text())["trials"]] == [None] * 3
    assert main(["search", file, "--out", "out"]) == 2
    assert runner.ran == [0, 1, 2]


def test_an_impossible_combination_fails_alone(search_file, monkeypatch):
    space = {K: {"choices": [8, 64]}, "sae.d_sae": {"choices": [32, 128]}}
    search = resolve_search(search_file(space=space))
    for name in ("load_model", "check_hook", "selection_data"):
        monkeypatch.setattr(trials_module, name, lambda *_args, **_kwargs: None)
    record = TrialRunner(search, Path("out")).run(5, {K: 64, "sae.d_sae": 32})
    assert (record.number, record.values, record.setting) == (5, None, None)
    assert record.error == "k is 64; it must be from 1 to d_sae (32)."


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


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_the_shipped_searches_are_valid(name):
    assert resolve_search(SEARCHES / f"{name}.yaml").space


BAD_SEARCHES = {
    "unknown key": ({"n_trial": 3}, ["Unknown key 'n_trial'", "Did you mean 'n_trials'?"]),
    "unknown key of a range": (
        {"space": {K: {"low": 1, "hihg": 2}}},
        ["search.yaml: space.sae.k: Unknown key 'hihg'", "Did you mean 'high'?"],
    ),
    "empty range": (
        {"space": {COEFFICIENT: {"low": 2, "high": 1}}},
        ["low is 2 and high is 1; low must be the smaller"],
    ),
    "range and choices": ({"space": {K: {"choices": [4], "low": 1}}}, ["space.sae.k: give low and high, or choices"]),
    "half a range": ({"space": {K: {"low": 1}}}, ["space.sae.k: give low and high", "Example: {low: 0.01"]),
    "log of zero": (
        {"space": {COEFFICIENT: {"low": 0, "high": 1, "log": True}}},
        ["low is 0; with log it must be above"],
    ),
    "no whole number": ({"space": {K: {"low": 1.5, "high": 4, "int": True}}}, ["with int both are whole numbers"]),
    "a choice twice": ({"space": {K: {"choices": [4, 4]}}}, ["choices [4, 4] repeat a value"]),
    "nothing varied": ({"space": {}}, ["space"]),
    "unknown run key": (
        {"space": {"training.lrr": {"low": 1, "high": 2}}},
        ["space.training.lrr = 1.0", "'training.lr'"],
    ),
    "unknown SAE key": ({"space": {"sae.kk": {"choices": [4]}}}, ["space.sae.kk = 4", "Unknown key in sae: 'kk'"]),
    "value out of range": (
        {"space": {"training.lr": {"low": -1, "high": 1}}},
        ["space.training.lr = -1.0", "greater than"],
    ),
    "value too large": ({"space": {K: {"choices": [4, 500]}}}, ["space.sae.k = 500: k is 500", "d_sae (128)"]),
    "fraction for a whole number": ({"space": {K: {"low": 4, "high": 8}}}, ["must be of type int", "add int: true"]),
    "fraction between whole numbers": ({"space": {"seed": {"low": 0, "high": 8}}}, ["seed", "add int: true"]),
    "another model": ({"space": {"model": {"choices": ["a"]}}}, ["space.model cannot be varied", "overrides"]),
    "missing target": ({"target": "gone.yaml"}, ["No file at gone.yaml"]),
    "population of one": ({"population_size": 1}, ["population_size", "greater than or equal to 2"]),
    "unknown override": ({"overrides": {"sed": 1}}, ["Unknown key 'sed'", "'seed'"]),
    "unknown override of the specification": ({"spec_overrides": {"sed": 1}}, ["Unknown key 'sed'", "'seed'"]),
}


@pytest.mark.parametrize(("changes", "messages"), BAD_SEARCHES.values(), ids=BAD_SEARCHES)
def test_a_bad_search_is_refused_before_anything_trains(search_file, no_model, capsys, changes, messages):
    assert main(["search", search_file(**changes), "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert [message for message in messages if message not in error] == []
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_without_optuna_the_extra_is_named(search_file, no_model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["search", search_file(), "--out", "out"]) == 2
    assert "pip install 'sae-lens-contrastive[search]'" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_folder_of_another_search_is_refused(search_file, hand_made):
    hand_made()
    run_search(resolve_search(search_file()), "out")
    with pytest.raises(UserError, match=r"out holds another run \(config.seed is 0 there and 1 here\)"):
        run_search(resolve_search(search_file(seed=1)), "out")
    search = resolve_search(search_file())
    saved = json.loads(Path("out/pareto.json").read_text())
    saved["trials"][1]["params"][COEFFICIENT] = 5.0
    Path("out/pareto.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"Trial 1 in out has .*coefficient 5\.0, .*version of Optuna proposes 6\."):
        run_search(search, "out")
    Path("out/pareto.json").write_text("[]")
    with pytest.raises(UserError, match=r"pareto\.json holds no trials of a search"):
        run_search(search, "out")
