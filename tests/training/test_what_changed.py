"""A run goes on from checkpoints of its own configuration only, and a finished one is not passed off as another."""

import json
import shutil

import pytest
import torch
from made_runs import TARGET, Killed, overrides, variants, weights

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import TINY_GEMMA_2
from sae_lens_contrastive.models.embedded import embedded_model_folder
from sae_lens_contrastive.training import resolve_runs, train_runs
from sae_lens_contrastive.training import train as train_module
from sae_lens_contrastive.training.identity import activation_cache, input_key, run_key, stream_key
from sae_lens_contrastive.training.side_by_side import SideBySideTrainer


def made(corpora, *names, **training):
    return resolve_runs(TARGET, variants(*names), overrides(corpora, **{"n_checkpoints": 4, **training}))


def kill_before_the_end(runs, out, model):
    """Leave checkpoints and no results."""

    def kill(trainer, *arguments):
        if trainer.n_training_steps == 6:
            raise Killed
        original(trainer, *arguments)

    original = SideBySideTrainer._update_pbar
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SideBySideTrainer, "_update_pbar", kill)
        with pytest.raises(Killed):
            train_runs(runs, out, model)


@pytest.fixture
def steps(monkeypatch):
    """Steps that were taken."""
    taken = []
    original = SideBySideTrainer._update_pbar
    monkeypatch.setattr(SideBySideTrainer, "_update_pbar", lambda *a: taken.append(1) or original(*a))
    return taken


def assert_same(folder, other):
    a, b = weights(folder), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_configuration_begins_anew(tiny_model, corpora, tmp_path, steps):
    kill_before_the_end(made(corpora, "run0"), tmp_path / "out", tiny_model)
    steps.clear()
    faster = made(corpora, "run0", lr=0.01)
    assert stream_key(faster[0]) == stream_key(made(corpora, "run0")[0])
    with pytest.raises(UserError, match="holds another run"):
        train_runs(faster, tmp_path / "out", tiny_model)
    shutil.rmtree(tmp_path / "out/run0")
    (folder,) = train_runs(faster, tmp_path / "out", tiny_model)
    assert len(steps) == 8
    (alone,) = train_runs(faster, tmp_path / "alone", tiny_model)
    assert_same(folder, alone)
    assert list((tmp_path / "out/checkpoints").iterdir()) == []


def test_runs_that_were_trained_together_go_on_one_by_one(tiny_model, corpora, tmp_path, steps):
    runs = made(corpora, "run0", "run1")
    kill_before_the_end(runs, tmp_path / "out", tiny_model)
    for run in runs:
        steps.clear()
        (folder,) = train_runs([run], tmp_path / "out", tiny_model)
        assert 0 < len(steps) < 8
        (alone,) = train_runs([run], tmp_path / "alone", tiny_model)
        assert_same(folder, alone)
    assert list((tmp_path / "out/checkpoints").iterdir()) == []


def test_runs_of_one_stream_keep_their_checkpoints_apart(tiny_model, corpora, tmp_path, steps):
    (first,), (second,) = made(corpora, "run0"), made(corpora, "run1")
    kill_before_the_end([first], tmp_path, tiny_model)
    train_runs([second], tmp_path, tiny_model)
    steps.clear()
    train_runs([first], tmp_path, tiny_model)
    assert 0 < len(steps) < 8


@pytest.fixture
def own_text(corpora, tmp_path):
    """The general corpus as a file that a test may change, and all sources."""
    path = tmp_path / "general.jsonl"
    shutil.copy(corpora["general"][0], path)
    return path, {**corpora, "general": [str(path)]}


def test_a_finished_run_of_other_texts_is_refused_or_trained_again(tiny_model, own_text, tmp_path, steps):
    path, corpora = own_text
    (folder,) = train_runs(made(corpora, "run0"), tmp_path / "out", tiny_model)
    before = weights(folder)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    steps.clear()
    with pytest.raises(UserError, match=r"out/run0 holds a run that was trained on other texts"):
        train_runs(made(corpora, "run0"), tmp_path / "out", tiny_model)
    assert not steps
    (folder,) = train_runs(made(corpora, "run0"), tmp_path / "out", tiny_model, renew=True)
    assert len(steps) == 8
    assert not torch.equal(before["W_dec"], weights(folder)["W_dec"])
    train_runs(made(corpora, "run0"), tmp_path / "out", tiny_model)
    assert len(steps) == 8


def test_other_packages_leave_a_finished_run_alone_unless_it_is_to_be_renewed(
    tiny_model, corpora, tmp_path, steps, monkeypatch
):
    train_runs(made(corpora, "run0"), tmp_path, tiny_model)
    steps.clear()
    monkeypatch.setattr(train_module, "package_versions", lambda: {"torch": "0"})
    train_runs(made(corpora, "run0"), tmp_path, tiny_model)
    assert not steps
    train_runs(made(corpora, "run0"), tmp_path, tiny_model, renew=True)
    assert len(steps) == 8
    assert json.loads((tmp_path / "run0/summary.json").read_text())["made_from"]["versions"] == {"torch": "0"}


def test_kept_activations_are_those_of_the_same_pass_through_the_model(corpora, tmp_path):
    (run,) = made(corpora, "run0")
    others = [
        made(corpora, "run0", **{name: value})[0]
        for name, value in (("autocast_lm", True), ("store_batch_size_prompts", 3), ("context_size", 16))
    ]
    caches = [activation_cache(each, tmp_path) for each in (run, *others)]
    assert len({cache.fingerprint for cache in caches}) == 4
    assert activation_cache(made(corpora, "run0", lr=0.01)[0], tmp_path) == caches[0]


def test_a_folder_that_is_written_anew_is_another_model_and_another_beginning(corpora, tiny_model, tmp_path):
    model = shutil.copytree(embedded_model_folder(TINY_GEMMA_2), tmp_path / "model")
    (trained,) = train_runs(made(corpora, "run0", n_checkpoints=0), tmp_path / "out", tiny_model)
    changes = {**overrides(corpora), "model": str(model), "sae": {"d_sae": 2304}}

    def keys():
        (run,) = resolve_runs(TARGET, variants("run0"), changes | {"warm_start": {"path": str(trained / "sae")}})
        return stream_key(run), input_key(run), run_key(run)

    first = keys()
    assert keys() == first
    assert len(set(first)) == 3
    (trained / "sae/cfg.json").write_text((trained / "sae/cfg.json").read_text() + " ")
    second = keys()
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    third = keys()
    # What a folder holds does not decide what may be trained together.
    assert first[0] == second[0] == third[0]
    for of_run in zip(first[1:], second[1:], third[1:], strict=True):
        assert len(set(of_run)) == 3
