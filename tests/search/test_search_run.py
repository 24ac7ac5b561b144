import json
import sys
from pathlib import Path

import pytest
import yaml
from made_searches import COEFFICIENT, K
from sae_lens import SAE

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.search import resolve_search, run_search
from sae_lens_contrastive.search import trials as trials_module
from sae_lens_contrastive.search.trials import best_tradeoff
from sae_lens_contrastive.training import load_summary
from sae_lens_contrastive.unlearning import SaeUnderTest, evaluate_saes
from sae_lens_contrastive.unlearning import shared as shared_module


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


def test_a_search_over_another_text_is_refused(search_file, hand_made):
    general = Path("general.txt")
    general.write_text("A text about the weather.")
    file = search_file(overrides={"corpora": {"general": [str(general.resolve())]}}, n_trials=2)
    hand_made()
    run_search(resolve_search(file), "out")
    general.write_text("Another text about the weather.")
    with pytest.raises(UserError, match=r"out holds another run \(config.run_inputs is '\w+' there and '\w+' here\)"):
        run_search(resolve_search(file), "out")
    general.write_text("A text about the weather.")
    assert len(run_search(resolve_search(file), "out")) == 2
