"""Runs on the tiny Gemma-2: from configuration files to stock SAEs, resumed and refused as promised."""

import json
import signal

import pytest
import torch
from made_runs import CONFIGS, HOOK, TARGET, overrides, variants
from sae_lens import SAE, LanguageModelSAERunnerConfig, LoggingConfig, TopKSAE

from sae_lens_contrastive import (
    ConfigError,
    ContrastiveSAETrainer,
    ContrastiveTopKTrainingSAEConfig,
    ContrastiveTrainingRunner,
    DomainData,
    UserError,
)
from sae_lens_contrastive.cli import main
from sae_lens_contrastive.data.corpora import load_corpus, to_dataset
from sae_lens_contrastive.training import load_summary, resolve_runs, train_runs
from sae_lens_contrastive.training import train as train_module

# BatchTopK SAEs are saved with a threshold, as JumpReLU SAEs.
STOCK_CLASSES = {"baseline": "TopKSAE", "contrastive": "TopKSAE", "all_mechanisms": "TopKSAE", "run5": "JumpReLUSAE"}


def stock_config(tmp_path, **sae):
    return LanguageModelSAERunnerConfig(
        sae=ContrastiveTopKTrainingSAEConfig(**{"d_in": 32, "d_sae": 64, "k": 4, **sae}),
        model_name="tiny-random-gemma-2",
        hook_name=HOOK,
        is_dataset_tokenized=False,
        training_tokens=1024,
        train_batch_size_tokens=128,
        context_size=32,
        store_batch_size_prompts=4,
        checkpoint_path=None,
        output_path=str(tmp_path / "sae"),
        logger=LoggingConfig(log_to_wandb=False),
        verbose=False,
    )


def test_sequences_longer_than_the_models_context_are_refused(tiny_model, corpora, tmp_path):
    runs = resolve_runs(TARGET, variants("baseline"), overrides(corpora, context_size=513))
    with pytest.raises(UserError, match="A sequence of 513 tokens exceeds the model's context of 512"):
        train_runs(runs, tmp_path, tiny_model)


def test_every_variant_trains_and_is_saved_as_a_stock_sae(tiny_model, corpora, tmp_path):
    names = [path.stem for path in sorted((CONFIGS / "variants").glob("*.yaml"))]
    assert {*STOCK_CLASSES, "run0", "run1", "run2", "run3", "run4"} <= set(names)
    changes = {**overrides(corpora, training_tokens=25_600, n_checkpoints=1), "sae": {"d_sae": 96}}
    runs = resolve_runs(TARGET, variants(*names), changes)
    folders = train_runs(runs, tmp_path, tiny_model)
    for name, folder in zip(names, folders, strict=True):
        assert folder == tmp_path / name
        sae = SAE.load_from_disk(folder / "sae")
        assert type(sae).__name__ == STOCK_CLASSES.get(name, "StandardSAE")
        assert sae.cfg.metadata.hook_name == HOOK
        assert sae.cfg.metadata.model_name == "tiny-random-gemma-2"
        summary = load_summary(folder)
        assert summary["n_training_steps"] == 100
        assert summary["overall_loss"] > 0
        assert (folder / "config.yaml").is_file()
        assert json.loads((folder / "history.json").read_text())[0]["step"] == 0
    # Warnings are watched for in every variant.
    watched = {"warnings"}
    recorded = {name: json.loads((tmp_path / name / "trackers.json").read_text()).keys() - watched for name in names}
    assert recorded["run0"] == set()
    assert recorded["run2"] == {"grouping"}
    assert recorded["run3"] >= {"grouping", "importance", "pruning"}
    assert recorded["run4"] >= {"grouping", "importance", "pruning"}
    assert recorded["run5"] >= {"curriculum"}
    surgeries = {"curriculum", "grouping", "importance", "pruning", "reinitialisation", "stability"}
    assert recorded["all_mechanisms"] >= surgeries


def test_the_same_seed_gives_the_same_sae(tiny_model, corpora, tmp_path):
    runs = resolve_runs(TARGET, variants("contrastive"), overrides(corpora))
    first, second = (train_runs(runs, tmp_path / name, tiny_model)[0] for name in ("a", "b"))
    a, b = (SAE.load_from_disk(folder / "sae").state_dict() for folder in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)
    other = resolve_runs(TARGET, variants("contrastive"), {**overrides(corpora), "seed": 1})
    third = SAE.load_from_disk(train_runs(other, tmp_path / "c", tiny_model)[0] / "sae").state_dict()
    assert not torch.equal(a["W_dec"], third["W_dec"])


def test_a_finished_run_is_not_trained_again(tiny_model, corpora, tmp_path, monkeypatch):
    runs = resolve_runs(TARGET, variants("baseline"), overrides(corpora))
    train_runs(runs, tmp_path, tiny_model)

    def fail(*_args, **_kwargs):
        raise AssertionError("a finished run must not need the model")

    monkeypatch.setattr(train_module, "load_model", fail)
    monkeypatch.setattr(train_module, "_train_together", fail)
    assert train_runs(runs, tmp_path) == [tmp_path / "baseline"]


def test_a_folder_of_another_run_is_left_alone(tiny_model, corpora, tmp_path):
    train_runs(resolve_runs(TARGET, variants("baseline"), overrides(corpora)), tmp_path, tiny_model)
    before = (tmp_path / "baseline/summary.json").read_bytes()
    other = resolve_runs(TARGET, variants("baseline"), overrides(corpora, lr=0.5))
    with pytest.raises(UserError, match=r"holds another run .*training\.lr is 0\.001 there and 0\.5 here"):
        train_runs(other, tmp_path, tiny_model)
    assert (tmp_path / "baseline/summary.json").read_bytes() == before


def test_held_out_entities_stay_out_of_the_forget_text(corpora, tmp_path):
    questions = tmp_path / "questions.jsonl"
    record = {"domain": "d", "relation": "r", "stems": ["s"], "answer": "a", "distractors": ["b"]}
    questions.write_text(
        json.dumps({**record, "id": "1", "entity": "France", "split": "held_out"})
        + "\n"
        + json.dumps({**record, "id": "2", "entity": "Chad", "split": "select"})
    )
    forget = tmp_path / "forget.jsonl"
    forget.write_text(
        json.dumps({"text": "about both", "entities": ["Chad", "France"]})
        + "\n"
        + json.dumps({"text": "about Chad", "entities": ["Chad"]})
    )
    changed = {**corpora, "forget": [str(forget)], "hold_out_entities_of": [str(questions)]}
    (run,) = resolve_runs(TARGET, variants("contrastive"), {"corpora": changed})
    data = train_module._texts(run).domain_data
    assert data is not None
    assert data.forget["text"][:] == ["about Chad"]


def test_a_stock_runner_configuration_streams_without_domains(tiny_model, corpora, tmp_path):
    cfg = stock_config(tmp_path, loss_terms={"group_contrastive": {"coefficient": 0.1}}, grouping={"every_n_steps": 3})
    dataset = to_dataset(load_corpus(corpora["general"][0]))
    runner = ContrastiveTrainingRunner(cfg, override_dataset=dataset, override_model=tiny_model)
    runner.run()
    assert isinstance(SAE.load_from_disk(tmp_path / "sae"), TopKSAE)
    assert runner.trainer.features.groups is not None


def test_a_stock_runner_configuration_streams_three_corpora(tiny_model, corpora, tmp_path):
    cfg = stock_config(tmp_path, loss_terms={"forget_margin": {"coefficient": 1.0, "n_features": 4}})
    general, forget, retain = (to_dataset(load_corpus(corpora[name][0])) for name in ("general", "forget", "retain"))
    data = DomainData(forget, retain, forget_share=0.25, retain_share=0.5)
    runner = ContrastiveTrainingRunner(cfg, data, override_dataset=general, override_model=tiny_model)
    runner.run()
    assert runner.trainer.domains is not None
    assert runner.trainer.domains.bincount().tolist() == [32, 32, 64]
    assert runner.trainer.history[-1]["forget_margin_loss"] > 0


def test_the_weights_of_a_given_model_gather_no_gradients(tiny_model, corpora, tmp_path):
    output_kl = {"coefficient": 1.0, "n_features": 4, "n_sequences": 1, "every_n_steps": 4}
    general, forget, retain = (to_dataset(load_corpus(corpora[name][0])) for name in ("general", "forget", "retain"))
    data = DomainData(forget, retain, output_space_sequences=2)
    tiny_model.requires_grad_(True)
    cfg = stock_config(tmp_path, loss_terms={"output_kl": output_kl})
    ContrastiveTrainingRunner(cfg, data, override_dataset=general, override_model=tiny_model).run()
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_checkpoint_to_resume_from(number, tiny_model, corpora, tmp_path, monkeypatch):
    cfg = stock_config(tmp_path)
    cfg.checkpoint_path = str(tmp_path / "checkpoints")
    dataset = to_dataset(load_corpus(corpora["general"][0]))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    step = ContrastiveSAETrainer.step

    def interrupted_step(trainer, batch):
        if trainer.n_training_steps == 3:
            signal.raise_signal(number)
        return step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ContrastiveSAETrainer, "step", interrupted_step)
        with pytest.raises(KeyboardInterrupt):
            ContrastiveTrainingRunner(cfg, override_dataset=dataset, override_model=tiny_model).run()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    cfg.resume_from_checkpoint = str(tmp_path / "checkpoints" / str(4 * 128))
    runner = ContrastiveTrainingRunner(cfg, override_dataset=dataset, override_model=tiny_model)
    runner.run()
    assert runner.trainer.n_training_steps == 8
    assert [record["step"] for record in runner.trainer.history] == [0, 5]
    weights = tmp_path / "checkpoints" / str(4 * 128) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cannot go on from .*512: sae_weights\.safetensors is not what was written"):
        ContrastiveTrainingRunner(cfg, override_dataset=dataset, override_model=tiny_model).run()


def test_a_checkpoint_of_another_run_is_refused(tiny_model, corpora, tmp_path):
    dataset = to_dataset(load_corpus(corpora["general"][0]))
    first, second = (stock_config(tmp_path / name, d_sae=d_sae) for name, d_sae in (("a", 32), ("b", 48)))
    first.n_checkpoints, first.checkpoint_path = 1, str(tmp_path / "checkpoints")
    ContrastiveTrainingRunner(first, override_dataset=dataset, override_model=tiny_model).run()
    (checkpoint,) = (tmp_path / "checkpoints").glob("[0-9]*")
    second.resume_from_checkpoint = str(checkpoint)
    with pytest.raises(UserError, match="it is not of this run"):
        ContrastiveTrainingRunner(second, override_dataset=dataset, override_model=tiny_model).run()
    second.resume_from_checkpoint = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has no readable checksums\.json"):
        ContrastiveTrainingRunner(second, override_dataset=dataset, override_model=tiny_model).run()


def test_a_run_that_is_killed_before_its_summary_goes_on_from_its_last_checkpoint(
    tiny_model, corpora, tmp_path, monkeypatch
):
    runs = resolve_runs(TARGET, variants("baseline"), overrides(corpora, training_tokens=2560, n_checkpoints=4))

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "_write_results", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_runs(runs, tmp_path, tiny_model)
    steps = []
    step = ContrastiveSAETrainer.step
    monkeypatch.setattr(ContrastiveSAETrainer, "step", lambda trainer, batch: steps.append(1) or step(trainer, batch))
    (folder,) = train_runs(runs, tmp_path, tiny_model)
    assert load_summary(folder)["n_training_steps"] == 10
    assert len(steps) < 5
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_checkpoints_that_a_kill_at_the_very_end_left_are_removed(tiny_model, corpora, tmp_path):
    runs = resolve_runs(TARGET, variants("run0", "run1"), overrides(corpora))
    for variant in ("run0", "run1", "unfinished"):
        (tmp_path / "checkpoints/left/1024" / variant).mkdir(parents=True)
    (tmp_path / "checkpoints/spent/1024/run0").mkdir(parents=True)
    train_runs(runs, tmp_path, tiny_model)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["left"]
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/summary.json").write_text("{}")
    train_runs(runs, tmp_path, tiny_model)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_interrupted_command_ends_with_one_line(corpora, tmp_path, monkeypatch, capsys):
    def interrupt(*_arguments):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(ContrastiveSAETrainer, "step", interrupt)
    sources = [f"corpora.{name}={source}" for name, source in corpora.items()]
    changes = [word for change in (*sources, "corpora.hold_out_entities_of=[]") for word in ("--set", change)]
    command = ["train", str(TARGET), str(variants("baseline")[0]), *changes, "--out", str(tmp_path / "out")]
    assert main(command) == 130
    assert "Run the same command again" in capsys.readouterr().err


def test_labels_are_asked_for_before_the_model_loads(tmp_path, monkeypatch):
    from sae_lens_contrastive.training import runner as runner_module

    monkeypatch.setattr(runner_module, "load_model", lambda *_args, **_kwargs: pytest.fail("the model was loaded"))
    cfg = stock_config(tmp_path, loss_terms={"supervised_contrastive": {"coefficient": 1.0}})
    with pytest.raises(ConfigError, match=r"loss_terms\.supervised_contrastive needs to know"):
        ContrastiveTrainingRunner(cfg)


def test_a_width_that_does_not_fit_is_refused_before_training(tiny_model, corpora, tmp_path):
    runs = resolve_runs(TARGET, variants("baseline"), {**overrides(corpora), "sae": {"d_in": 31}})
    with pytest.raises(ConfigError, match="Set d_in: 32"):
        train_runs(runs, tmp_path, tiny_model)


def test_a_run_goes_on_from_a_trained_sae(tiny_model, corpora, tmp_path):
    """With a vanishing learning rate the SAE that comes out is the one that went in."""
    (first,) = train_runs(resolve_runs(TARGET, variants("baseline"), overrides(corpora)), tmp_path / "a", tiny_model)
    started = {**overrides(corpora, lr=1e-12), "warm_start": {"path": str(first / "sae")}}
    (second,) = train_runs(resolve_runs(TARGET, variants("baseline"), started), tmp_path / "b", tiny_model)
    a, b = (SAE.load_from_disk(folder / "sae") for folder in (first, second))
    torch.testing.assert_close(b.W_dec, a.W_dec, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(b.W_enc, a.W_enc, rtol=1e-4, atol=1e-5)


def test_a_missing_sae_to_start_from_is_refused_before_the_model_loads(corpora, tmp_path):
    started = {**overrides(corpora), "warm_start": {"path": str(tmp_path / "nowhere")}}
    with pytest.raises(UserError, match=r"warm_start: no cfg\.json in"):
        resolve_runs(TARGET, variants("baseline"), started)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk", "jumprelu", "matryoshka_batchtopk"])
def test_every_architecture_trains_with_every_mechanism(architecture, tiny_model, corpora, tmp_path):
    changes = {**overrides(corpora, training_tokens=5120), "sae": {"architecture": architecture, "d_sae": 64}}
    (folder,) = train_runs(resolve_runs(TARGET, variants("all_mechanisms"), changes), tmp_path, tiny_model)
    sae = SAE.load_from_disk(folder / "sae")
    assert sae.cfg.architecture() == ("standard" if architecture == "standard" else "jumprelu")
    assert all(torch.isfinite(tensor).all() for tensor in sae.state_dict().values())
