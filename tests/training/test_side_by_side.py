"""Variants trained over one stream: each ends as if trained alone, and a killed run ends as if it had not been."""

import json
import signal

import pytest
import torch
from made_runs import TARGET, Killed, overrides, variants, weights

from sae_lens_contrastive.training import load_summary, resolve_runs, train_runs
from sae_lens_contrastive.training.identity import stream_key
from sae_lens_contrastive.training.side_by_side import SideBySideTrainer

EVERYTHING = {
    "sae": {
        "architecture": "topk",
        "d_sae": 64,
        "loss_terms": {
            "group_contrastive": {"coefficient": 0.1, "separation_weight": 1.0},
            "forget_margin": {"coefficient": 1.0, "n_features": 4, "warm_up_steps": 4},
            "feature_kl": {"coefficient": 0.1},
            "mutual_information": {"coefficient": 0.1, "n_features": 8},
            "sentence_margin": {"coefficient": 0.1, "n_features": 4, "n_sentences": 3, "n_sequences": 1},
            "output_kl": {
                "coefficient": 0.1,
                "every_n_steps": 5,
                "n_sequences": 1,
                "n_sentences": 2,
                "retain_per_forget": 2,
                "n_features": 4,
            },
        },
        "grouping": {"method": "hierarchical", "n_clusters": 4, "every_n_steps": 4, "window_tokens": 512},
        "importance": {
            "activation_weight": 0.35,
            "gradient_weight": 0.5,
            "mutual_information_weight": 0.15,
            "every_n_steps": 3,
        },
        "pruning": {"share": 0.2, "threshold": 0.5, "every_n_steps": 6, "start_step": 0},
        "reinitialisation": {"every_n_steps": 8},
        "stability": {"every_n_steps": 4},
        "curriculum": {
            "stages": {
                "reconstruct": {"start": 0.0, "loss_terms": []},
                "unlearn": {
                    "start": 0.2,
                    "loss_terms": [
                        "group_contrastive",
                        "forget_margin",
                        "feature_kl",
                        "mutual_information",
                        "sentence_margin",
                        "output_kl",
                    ],
                },
            },
            "forget_share_start": 0.5,
        },
    }
}

RESERVED = {
    "sae": {
        "architecture": "topk",
        "d_sae": 64,
        "loss_terms": {
            name: {"coefficient": 1.0, "n_features": 4, "n_sentences": 3, "n_sequences": 1, "retain_per_forget": 2}
            for name in ("sentence_margin", "output_kl")
        },
        "whitening": {},
        "curriculum": {
            "stages": {
                "find": {"start": 0.0, "loss_terms": ["sentence_margin"]},
                "unlearn": {"start": 0.4, "loss_terms": ["sentence_margin", "output_kl"]},
            },
        },
    }
}
"""What EVERYTHING cannot have beside the forget margin: an encoder that learns in white coordinates."""


def settings(corpora, **training):
    corpora = {**corpora, "output_space_sentences": 8}
    return overrides(corpora, **{"training_tokens": 5120, "n_checkpoints": 4, **training})


def everything(corpora, **training):
    """A run with every mechanism on."""
    return made_of(EVERYTHING, "everything", settings(corpora, **training))


def made_of(sae, name, changes):
    """The baseline with other settings of the SAE."""
    return resolve_runs(TARGET, variants("baseline"), {**sae, **changes, "variant": name})


def assert_same_run(a, b):
    found, expected = weights(a), weights(b)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in ("history.json", "trackers.json"):
        assert json.loads((a / name).read_text()) == json.loads((b / name).read_text())


@pytest.mark.parametrize("cache_tokens", [1024, 0], ids=["collected", "streamed"])
def test_each_variant_ends_as_if_trained_alone(cache_tokens, tiny_model, corpora, tmp_path):
    training = settings(corpora, cache_tokens=cache_tokens, n_batches_in_buffer=16)
    runs = [*resolve_runs(TARGET, variants("run1", "run3"), {**training, "sae": {"d_sae": 48}})]
    runs += everything(corpora, cache_tokens=cache_tokens, n_batches_in_buffer=16)
    assert stream_key(runs[0]) == stream_key(runs[1])
    together = train_runs(runs, tmp_path / "together", tiny_model)
    for run, folder in zip(runs, together, strict=True):
        (alone,) = train_runs([run], tmp_path / "alone", tiny_model)
        assert_same_run(folder, alone)


def test_the_model_runs_once_for_all_variants(tiny_model, corpora, tmp_path, monkeypatch):
    n_read = []
    forward = tiny_model.run_with_cache

    def counted(tokens, *arguments, **options):
        # Hooks are checked on a few tokens; texts come in whole batches.
        n_read.append(tokens.numel() if len(tokens) > 1 else 0)
        return forward(tokens, *arguments, **options)

    monkeypatch.setattr(tiny_model, "run_with_cache", counted)
    training = settings(corpora, cache_tokens=0, n_batches_in_buffer=16)
    train_runs(resolve_runs(TARGET, variants("run0"), training), tmp_path / "one", tiny_model)
    n_alone = sum(n_read)
    train_runs(resolve_runs(TARGET, variants("run0", "run1", "run2"), training), tmp_path / "three", tiny_model)
    assert n_alone >= 5120
    assert sum(n_read) == 2 * n_alone


def test_runs_on_different_streams_are_trained_apart(corpora):
    (run,) = resolve_runs(TARGET, variants("run0"), settings(corpora))
    (wider,) = resolve_runs(TARGET, variants("run0"), settings(corpora, train_batch_size_tokens=512))
    (other,) = resolve_runs(TARGET, variants("run0"), {**settings(corpora), "seed": 1})
    (faster,) = resolve_runs(TARGET, variants("run0"), settings(corpora, lr=0.01))
    assert stream_key(faster) == stream_key(run)
    assert len({stream_key(each) for each in (run, wider, other)}) == 3


@pytest.mark.parametrize("cache_tokens", [1024, 0], ids=["collected", "streamed"])
def test_a_killed_run_ends_as_if_it_had_not_been(cache_tokens, tiny_model, corpora, tmp_path, monkeypatch):
    changes = settings(corpora, cache_tokens=cache_tokens, n_batches_in_buffer=16)
    runs = [*made_of(EVERYTHING, "everything", changes), *made_of(RESERVED, "reserved", changes)]
    runs += resolve_runs(TARGET, variants("run1"), changes)
    whole = train_runs(runs, tmp_path / "whole", tiny_model)
    kill_at(15, monkeypatch)
    with pytest.raises(Killed):
        train_runs(runs, tmp_path / "killed", tiny_model)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "killed/checkpoints").glob("*/*")) == ["2304", "3328"]
    steps = count_steps(monkeypatch)
    resumed = train_runs(runs, tmp_path / "killed", tiny_model)
    assert len(steps) == 20 - 13
    for folder, expected in zip(resumed, whole, strict=True):
        assert_same_run(folder, expected)
        assert load_summary(folder)["pruned_features"] == load_summary(expected)["pruned_features"]
    assert not (tmp_path / "killed/checkpoints").exists() or not list((tmp_path / "killed/checkpoints").glob("*/*"))


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    tiny_model, corpora, tmp_path, monkeypatch, capsys
):
    runs = everything(corpora)
    (whole,) = train_runs(runs, tmp_path / "whole", tiny_model)
    kill_at(15, monkeypatch)
    with pytest.raises(Killed):
        train_runs(runs, tmp_path / "killed", tiny_model)
    monkeypatch.undo()
    (newest,) = (tmp_path / "killed/checkpoints").glob("*/3328")
    state = newest / "everything/trainer_state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    steps = count_steps(monkeypatch)
    (resumed,) = train_runs(runs, tmp_path / "killed", tiny_model)
    assert len(steps) == 20 - 9
    assert_same_run(resumed, whole)
    told = capsys.readouterr().err
    assert f"{newest} is damaged: everything/trainer_state.pt is not what was written" in told


def test_a_stopped_run_goes_on_from_the_step_it_stopped_at(tiny_model, corpora, tmp_path, monkeypatch):
    runs = everything(corpora, n_checkpoints=0)
    (whole,) = train_runs(runs, tmp_path / "whole", tiny_model)
    step = SideBySideTrainer._update_pbar

    def stop(trainer, outputs, bar, *arguments):
        if trainer.n_training_steps == 7:
            signal.raise_signal(signal.SIGTERM)
        step(trainer, outputs, bar, *arguments)

    monkeypatch.setattr(SideBySideTrainer, "_update_pbar", stop)
    with pytest.raises(KeyboardInterrupt):
        train_runs(runs, tmp_path / "stopped", tiny_model)
    monkeypatch.undo()
    steps = count_steps(monkeypatch)
    (resumed,) = train_runs(runs, tmp_path / "stopped", tiny_model)
    assert len(steps) == 20 - 7
    assert_same_run(resumed, whole)


def test_every_mechanism_was_at_work(tiny_model, corpora, tmp_path):
    """The tests above would mean little if a part had slept."""
    (folder,) = train_runs(everything(corpora), tmp_path, tiny_model)
    records = json.loads((folder / "trackers.json").read_text())
    assert set(records) == {
        "curriculum",
        "grouping",
        "importance",
        "pruning",
        "reinitialisation",
        "stability",
    }
    assert sum(record["n_newly_pruned"] for record in records["pruning"]) > 0
    assert sum(record["n_reinitialised"] for record in records["reinitialisation"]) > 0
    history = json.loads((folder / "history.json").read_text())
    for name in ("output_kl_loss", "sentence_margin_loss"):
        assert max(record[name] for record in history) > 0


def kill_at(step, monkeypatch):
    """Raise what nothing catches when the stream or the trainers reach a step."""
    original = SideBySideTrainer._update_pbar

    def update(trainer, *arguments):
        if trainer.n_training_steps == step:
            raise Killed
        original(trainer, *arguments)

    monkeypatch.setattr(SideBySideTrainer, "_update_pbar", update)


def count_steps(monkeypatch):
    """Steps of the coordinator from here on."""
    steps = []
    original = SideBySideTrainer._update_pbar
    monkeypatch.setattr(SideBySideTrainer, "_update_pbar", lambda *a: steps.append(1) or original(*a))
    return steps


def test_a_trained_sae_says_what_it_reserved(tiny_model, corpora, tmp_path):
    runs = [
        *made_of(RESERVED, "reserved", settings(corpora)),
        *resolve_runs(TARGET, variants("run0"), settings(corpora)),
    ]
    folders = train_runs(runs, tmp_path, tiny_model)
    kept = [json.loads((folder / "sae/cfg.json").read_text())["metadata"] for folder in folders]
    assert [each.get("n_reserved_features") for each in kept] == [4, None]
    history = json.loads((folders[0] / "history.json").read_text())
    assert max(record["output_kl_loss"] for record in history) > 0
