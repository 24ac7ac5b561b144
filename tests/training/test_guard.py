"""A step whose numbers are not finite is not taken; what it was is on disk."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import BATCH, DOMAINS, MARGIN, Stream, make_sae, trainer_config

from sae_lens_contrastive import UserError
from sae_lens_contrastive.losses import LossTerm
from sae_lens_contrastive.losses.base import WeightedTerm
from sae_lens_contrastive.training import ContrastiveSAETrainer
from sae_lens_contrastive.training.parts.base import TrainingPart


class Spoilt(Stream):
    """One number of the batch of one step is `value`."""

    def __init__(self, value, at=3):
        super().__init__()
        self.value, self.left = value, at

    def __next__(self):
        x = super().__next__()
        self.left -= 1
        if self.left < 0:
            x[5, 2] = self.value
        return x


@dataclass(frozen=True)
class Breaks(LossTerm):
    """A term whose loss or gradient is not finite from step 3 on."""

    how: str

    def __call__(self, ctx):
        acts = ctx.feature_acts
        if ctx.step < 3:
            return 0.0 * acts.sum()
        if self.how == "gradient":
            # 0 everywhere, with an infinite slope at 0.
            return (acts.sum() - acts.sum().detach()).abs().sqrt()
        return acts.sum() * math.nan


def trainer_with(how, tmp_path=None):
    trainer = ContrastiveSAETrainer(trainer_config(), make_sae(), Stream(), DOMAINS, failure_folder=tmp_path)
    trainer.sae.loss_terms = {"breaks": WeightedTerm(Breaks(how), 1.0, 0)}
    coefficients = trainer.get_coefficients
    trainer.get_coefficients = lambda: {**coefficients(), "breaks": 1.0}
    return trainer


def weights_and_state(trainer):
    kept = {name: parameter.detach().clone() for name, parameter in trainer.sae.named_parameters()}
    return kept, trainer.optimizer.state_dict()["state"][0]["exp_avg"].clone()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("loss", "breaks_loss, overall_loss are not finite"),
        ("gradient", "the gradient of .*W_enc.* is not finite, while every loss is"),
    ],
)
def test_the_step_is_not_taken_and_the_term_is_named(how, said, tmp_path):
    trainer = trainer_with(how, tmp_path)
    for _ in range(3):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
    weights, moments = weights_and_state(trainer)
    batch = next(trainer.data_provider)
    with pytest.raises(UserError, match=rf"Step 3: {said}\. The step was not taken\..*failure\.safetensors"):
        trainer.step(batch)
    after, moments_after = weights_and_state(trainer)
    assert all(torch.equal(weights[name], after[name]) for name in weights)
    assert torch.equal(moments, moments_after)
    told = json.loads((tmp_path / "failure.json").read_text())
    assert told["step"] == 3
    assert told["losses"]["breaks_loss"] == ("nan" if how == "loss" else 0.0)
    kept = load_file(tmp_path / "failure.safetensors")
    assert torch.equal(kept["batch"], batch)
    assert torch.equal(kept["domains"], DOMAINS)


class TookOver(TrainingPart):
    """Has the gradients of some features, under the names of the parameters that they are of."""

    name = "took over"

    def after_step(self, view):
        self.gradients = {"W_enc": torch.zeros(4, 1), "b_enc": torch.zeros(1)}


def test_gradients_that_a_part_took_over_hide_no_others(tmp_path):
    trainer = trainer_with("gradient", tmp_path)
    trainer.parts = [*trainer.parts, TookOver()]
    for _ in range(3):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
    with pytest.raises(UserError, match=r"Step 3: the gradient of .*W_enc.* is not finite"):
        trainer.step(next(trainer.data_provider))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_activations_that_are_not_finite_stop_before_the_forward_pass(value, tmp_path):
    trainer = ContrastiveSAETrainer(
        trainer_config(), make_sae(), Spoilt(value), DOMAINS, failure_folder=tmp_path / "run"
    )
    with pytest.raises(UserError, match=f"Step 3: 1 of the {BATCH} activations of the batch are not finite"):
        trainer.fit()
    assert all(bool(parameter.isfinite().all()) for parameter in trainer.sae.parameters())
    assert json.loads((tmp_path / "run/failure.json").read_text())["step"] == 3


def test_without_a_folder_nothing_is_written():
    with pytest.raises(UserError, match=r"Step 3: .* The step was not taken\. The model made them"):
        ContrastiveSAETrainer(trainer_config(), make_sae(loss_terms=MARGIN), Spoilt(math.nan), DOMAINS).fit()
