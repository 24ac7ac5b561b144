"""The trainer: labels and groups reach the terms, the host's loop stays the host's, checkpoints continue."""

import pytest
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_contrastive import ConfigError, ContrastiveTopKTrainingSAE, ContrastiveTopKTrainingSAEConfig
from sae_lens_contrastive.losses import FORGET, RETAIN
from sae_lens_contrastive.training import ContrastiveSAETrainer
from sae_lens_contrastive.training.parts import base

D_IN, D_SAE, BATCH = 8, 24, 32
MARGIN = {"forget_margin": {"coefficient": 1.0, "n_features": 2, "margin": 2.0, "warm_up_steps": 4}}


class Stream:
    """Forget tokens lie along the first input direction, retain tokens along the second."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self):
        return self

    def __next__(self):
        x = 0.1 * torch.randn(BATCH, D_IN, generator=self.generator)
        x[: BATCH // 2, 0] += 2
        x[BATCH // 2 :, 1] += 2
        return x


DOMAINS = torch.tensor([FORGET] * (BATCH // 2) + [RETAIN] * (BATCH // 2))


def trainer_config(steps=20, **kwargs):
    return SAETrainerConfig(
        total_training_samples=steps * BATCH, train_batch_size_samples=BATCH, lr=1e-2, lr_end=1e-3, **kwargs
    )


def make_sae(seed=0, **kwargs):
    torch.manual_seed(seed)
    return ContrastiveTopKTrainingSAE(ContrastiveTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=4, **kwargs))


def test_without_terms_training_is_the_hosts_bit_for_bit():
    torch.manual_seed(0)
    stock = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=4))
    SAETrainer(trainer_config(), stock, Stream()).fit()
    mine = make_sae()
    ContrastiveSAETrainer(trainer_config(), mine, Stream(), DOMAINS).fit()
    for name, parameter in stock.named_parameters():
        assert torch.equal(parameter, dict(mine.named_parameters())[name]), name


def test_the_forget_margin_separates_planted_domains():
    sae = make_sae(loss_terms=MARGIN)
    ContrastiveSAETrainer(trainer_config(150), sae, Stream(), DOMAINS).fit()
    acts = sae.encode(next(Stream(seed=9)))[:, :2]
    assert (acts[: BATCH // 2].amax(1) > 1).all()
    assert (acts[BATCH // 2 :] > 0).float().mean() < 0.05


def test_the_coefficient_warms_up_under_the_name_of_the_term():
    trainer = ContrastiveSAETrainer(trainer_config(), make_sae(loss_terms=MARGIN), Stream(), DOMAINS)
    seen = []
    for _ in range(6):
        seen.append(trainer.get_coefficients()["forget_margin"])
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
    assert seen == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])


def test_a_term_on_labels_needs_labels():
    with pytest.raises(ConfigError, match="no forget and retain corpus is given"):
        ContrastiveSAETrainer(trainer_config(), make_sae(loss_terms=MARGIN), Stream())


def test_groups_are_formed_on_schedule_and_reach_the_term():
    sae = make_sae(
        loss_terms={"group_contrastive": {"coefficient": 0.1}},
        grouping={"every_n_steps": 5, "percentile": 50.0, "window_tokens": 160},
    )
    trainer = ContrastiveSAETrainer(trainer_config(), sae, Stream(), DOMAINS, history_every_n_steps=1)
    for step in range(7):
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        assert (trainer.features.groups is not None) == (step >= 4)
        assert (output.losses["group_contrastive_loss"] > 0) == (step >= 5)
    assert trainer.features.groups is not None
    assert trainer.history[-1]["n_groups"] == len(trainer.features.groups.groups) > 0
    assert trainer.history[-1]["correlation_threshold"] == pytest.approx(trainer.features.groups.threshold)


def test_a_long_history_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(base, "MOST_RECORDS", 6)
    trainer = ContrastiveSAETrainer(trainer_config(30), make_sae(), Stream(), DOMAINS, history_every_n_steps=2)
    steps = []
    for _ in range(30):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        steps.append([record["step"] for record in trainer.history])
        assert len(steps[-1]) <= 6
    assert steps[11] == [0, 2, 4, 6, 8, 10]
    assert steps[23] == [0, 4, 8, 12, 16, 20]
    assert steps[29] == [0, 8, 16, 24]


def test_a_checkpoint_continues_as_if_nothing_happened(tmp_path):
    kwargs = {
        "loss_terms": {**MARGIN, "group_contrastive": {"coefficient": 0.5}},
        "grouping": {"every_n_steps": 4, "percentile": 50.0, "window_tokens": 64},
    }
    whole = ContrastiveSAETrainer(trainer_config(18), make_sae(**kwargs), Stream(), DOMAINS)
    whole.fit()

    first = ContrastiveSAETrainer(trainer_config(10), make_sae(**kwargs), Stream(), DOMAINS)
    first.fit()
    first.save_checkpoint("middle", base_path=tmp_path)
    second_sae = make_sae(seed=1, **kwargs)
    second = ContrastiveSAETrainer(trainer_config(18), second_sae, first.data_provider, DOMAINS)
    second.load_trainer_state(tmp_path / "middle")
    second_sae.load_weights_from_checkpoint(tmp_path / "middle")
    second.fit()
    for name, parameter in whole.sae.named_parameters():
        assert torch.equal(parameter, dict(second_sae.named_parameters())[name]), name
    assert second.history == whole.history


CURRICULUM = {
    "stages": {
        "reconstruct": {"start": 0.0, "loss_terms": []},
        "unlearn": {"start": 0.5, "loss_terms": ["forget_margin"]},
    },
    "forget_share_start": 0.25,
    "forget_share_full_at": 1.0,
}


def test_the_curriculum_changes_what_it_says():
    """Terms are off until their stage, and the forget tokens of a batch take part little by little."""
    sae = make_sae(loss_terms=MARGIN, curriculum=CURRICULUM)
    trainer = ContrastiveSAETrainer(trainer_config(20), sae, Stream(), DOMAINS, history_every_n_steps=1)
    n_forget, n_retain = [], []
    training_forward_pass = sae.training_forward_pass

    def watched(step_input):
        domains = sae.batch_context.domains
        assert domains is not None
        assert len(domains) == len(step_input.sae_in)
        n_forget.append(int((domains == FORGET).sum()))
        n_retain.append(int((domains == RETAIN).sum()))
        return training_forward_pass(step_input)

    sae.training_forward_pass = watched
    trainer.fit()
    assert [record["forget_margin_loss"] > 0 for record in trainer.history] == [False] * 11 + [True] * 9
    # 16 forget tokens a batch: a quarter of them at first, growing by 3/4 of 16 over 20 steps.
    assert n_forget == [round(16 * (0.25 + 0.75 * step / 20)) for step in range(20)]
    assert n_retain == [16] * 20
    assert trainer.n_training_samples == 20 * BATCH
    assert trainer.records()["curriculum"] == [
        {"step": 0, "stage": "reconstruct", "forget_share": 0.25},
        {"step": 10, "stage": "unlearn", "forget_share": 0.625},
    ]
    assert trainer.history[10]["forget_share"] == pytest.approx(0.625)


def test_pruned_features_stay_at_zero_though_a_term_pulls_at_them():
    """The margin raises hidden_pre of the reserved features; masked ones must not follow."""
    sae = make_sae(loss_terms=MARGIN, importance={"every_n_steps": 1}, pruning={"every_n_steps": 100})
    trainer = ContrastiveSAETrainer(trainer_config(20), sae, Stream(), DOMAINS)
    with torch.no_grad():
        trainer.features.pruned[:2] = True
        sae.W_enc[:, :2] = 0
        sae.b_enc[:2] = 0
    trainer.fit()
    x = next(Stream(seed=9))
    assert not sae.W_enc[:, :2].any()
    assert not sae.b_enc[:2].any()
    assert not sae.encode(x)[:, :2].any()
    assert sae.encode(x)[:, 2:].any()
    assert not trainer.dead_neurons[:2].any()


def test_the_summary_is_a_mean_of_what_was_known():
    trainer = ContrastiveSAETrainer(trainer_config(), make_sae(), Stream(), DOMAINS)
    trainer.history = [{"step": 0, "l0": 2.0}, {"step": 5, "l0": 4.0, "n_groups": 6.0}]
    assert {name: trainer.summary()[name] for name in ("l0", "n_groups")} == {"l0": 3.0, "n_groups": 6.0}


def test_the_summary_counts_pruned_features_apart_from_dead_ones():
    sae = make_sae(importance={"every_n_steps": 1}, pruning={"every_n_steps": 100})
    trainer = ContrastiveSAETrainer(trainer_config(4, dead_feature_window=1), sae, Stream(), DOMAINS)
    trainer.features.pruned[:2] = True
    with torch.no_grad():
        sae.b_enc[:5] = -100.0
    trainer.fit()
    assert trainer.summary()["pruned_features"] == 2
    assert trainer.summary()["dead_features"] >= 3


def test_golden_losses():
    """A refactor must leave these numbers as they are: 12 steps from seed 0, all terms on."""
    sae = make_sae(
        loss_terms={
            **MARGIN,
            "supervised_contrastive": {"coefficient": 0.5},
            "group_contrastive": {"coefficient": 0.5},
        },
        grouping={"every_n_steps": 4, "percentile": 50.0, "window_tokens": 128},
    )
    trainer = ContrastiveSAETrainer(trainer_config(12), sae, Stream(), DOMAINS, history_every_n_steps=11)
    trainer.fit()
    last = trainer.history[-1]
    assert last["step"] == 11
    found = {name: value for name, value in last.items() if name.endswith("_loss")}
    assert found == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = {
    "overall_loss": 6.82904,
    "mse_loss": 3.02572,
    "auxiliary_reconstruction_loss": 0.0,
    "forget_margin_loss": 1.95636,
    "supervised_contrastive_loss": 1.3611,
    "group_contrastive_loss": 0.48586,
}
