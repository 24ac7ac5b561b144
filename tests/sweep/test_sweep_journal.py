import json
import sys
from pathlib import Path

import optuna
import pytest
from made_sweeps import COEFFICIENT, K

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.search.proposals import Proposals
from sae_lens_contrastive.search.trials import Objectives
from sae_lens_contrastive.sweep import resolve_sweep, run_sweep

JOURNAL = "optuna_journal.log"


def search_of(file, out="out"):
    return run_sweep(resolve_sweep(file), out)


def journaled(out="out"):
    lines = (Path(out) / JOURNAL).read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert all(isinstance(json.loads(line), dict) for line in lines)
    backend = optuna.storages.journal.JournalFileBackend(str(Path(out) / JOURNAL))
    study = optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend))
    return [(trial.state.name, trial.params, trial.values) for trial in study.get_trials()]


def test_a_search_proposes_what_the_command_search_would(searched, hand_made):
    sweep = resolve_sweep(searched())
    search_of("sweep.yaml")
    trials = read_json("out/pareto.json")["trials"]
    proposals = Proposals(sweep.space, 3, 0)
    for trial in trials:
        # One after another, each told before the next is asked for.
        assert proposals.ask() == trial["params"]
        proposals.tell(trial["values"] and Objectives(**trial["values"]))
    assert len(trials) == 12
    assert {trial["number"] for trial in trials if trial["on_front"]} == proposals.front()
    names = ("forget_accuracy", "retain_accuracy", "explained_variance")
    assert journaled() == [("COMPLETE", t["params"], [t["values"][name] for name in names]) for t in trials]


def test_the_trials_of_a_generation_are_begun_before_one_is_told(searched, hand_made):
    hand_made.mishaps = {5: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        search_of(searched())
    assert [state for state, *_ in journaled()] == ["COMPLETE"] * 3 + ["RUNNING"] * 3


@pytest.mark.parametrize("interrupted_at", [1, 5, 9])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(searched, hand_made, interrupted_at):
    file = searched()
    hand_made.mishaps = {4: RuntimeError("lost"), 7: UserError("diverged.")}
    search_of(file, "whole")
    hand_made.asked = []
    # The failures fall on the same jobs as before.
    mishaps = {4: RuntimeError("lost"), 7: UserError("diverged.")}
    hand_made.mishaps = {
        **{n + (n >= interrupted_at): e for n, e in mishaps.items()},
        interrupted_at: KeyboardInterrupt(),
    }
    with pytest.raises(KeyboardInterrupt):
        search_of(file, "parts")
    search_of(file, "parts")
    assert journaled("parts") == journaled("whole")
    assert "FAIL" in {state for state, *_ in journaled("whole")}
    assert records("parts") == records("whole")


def records(out):
    return [
        {key: value for key, value in trial.items() if key not in ("seconds", "jobs")}
        for trial in read_json(f"{out}/pareto.json")["trials"]
    ]


def test_a_finished_search_goes_on_with_more_trials(searched, hand_made):
    search_of(searched(n_trials=4))
    few = journaled()
    search_of(searched(n_trials=7))
    assert len(hand_made.asked) == 7
    assert journaled()[:4] == few
    search_of(searched(n_trials=7), "at_once")
    assert journaled("at_once") == journaled()


def test_an_impossible_combination_fails_alone(sweep_file, hand_made):
    space = {K: {"choices": [8, 64]}, "sae.d_sae": {"choices": [32, 128]}, COEFFICIENT: {"low": 0.1, "high": 10}}
    search_of(sweep_file(grid={}, search={"space": space, "n_trials": 12, "population_size": 12}))
    trials = read_json("out/pareto.json")["trials"]
    impossible = [trial["params"][K] > trial["params"]["sae.d_sae"] for trial in trials]
    assert 0 < sum(impossible) < 12
    assert [trial["error"] == "k is 64; it must be from 1 to d_sae (32)." for trial in trials] == impossible
    assert [state == "FAIL" for state, *_ in journaled()] == impossible
    assert len(hand_made.asked) == 12 - sum(impossible)


def test_a_torn_line_and_a_lock_of_a_killed_process_do_no_harm(searched, hand_made):
    search_of(searched(n_trials=4))
    before = journaled()
    with Path("out", JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    Path("out", f"{JOURNAL}.lock").symlink_to(JOURNAL)
    search_of(searched(n_trials=6))
    assert journaled()[:4] == before
    assert len(journaled()) == 6


def test_a_journal_of_other_proposals_and_what_is_none_are_refused(searched, hand_made):
    search_of(searched(n_trials=3))
    journal = Path("out", JOURNAL)
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"sae.k":', b'"sae.kk":'))
    with pytest.raises(UserError, match=r"Trial 0 in .* this version of Optuna proposes"):
        search_of(searched(n_trials=3))
    journal.write_bytes(b"nothing of that kind\n{}\n")
    with pytest.raises(UserError, match=r"optuna_journal\.log is no journal of Optuna"):
        search_of(searched(n_trials=3))


def test_without_optuna_the_extra_is_named(searched, hand_made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", searched(), "--out", "out"]) == 2
    assert "pip install 'sae-lens-contrastive[search]'" in capsys.readouterr().err
    assert not Path("out").exists()
