"""Unlearning objectives on a vocabulary of three words."""

import math

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import OBJECTIVES, ForgetPredictions, UnlearningObjective, register_objective
from sae_lens_contrastive.losses.objectives import build_objective

EDITED = [[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]
MODEL = [[0.25, 0.5, 0.25], [0.4, 0.4, 0.2]]
REFERENCE = [0.25, 0.5, 0.25]


def said(edited=EDITED, targets=(0, 1), model=MODEL, reference=REFERENCE):
    edited, model, reference = (torch.as_tensor(p).log() for p in (edited, model, reference))
    return ForgetPredictions(edited, torch.tensor(targets), reference, model)


def test_uniform_is_the_divergence_of_the_uniform_distribution():
    first = -math.log(3) - (math.log(0.5) + 2 * math.log(0.25)) / 3
    second = -math.log(3) - (math.log(0.8) + 2 * math.log(0.1)) / 3
    assert OBJECTIVES["uniform"]()(said()).item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert OBJECTIVES["uniform"]()(said([[1 / 3] * 3] * 2)).item() == pytest.approx(0.0, abs=1e-6)


def test_reference_is_the_divergence_of_the_reference():
    first = 0.25 * math.log(0.25 / 0.5) + 0.5 * math.log(0.5 / 0.25)
    second = 0.25 * math.log(0.25 / 0.8) + 0.5 * math.log(0.5 / 0.1) + 0.25 * math.log(0.25 / 0.1)
    assert OBJECTIVES["reference"]()(said()).item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert OBJECTIVES["reference"]()(said([REFERENCE] * 2)).item() == pytest.approx(0.0, abs=1e-6)


def test_npo_is_the_soft_penalty_on_the_ratio_of_the_next_token():
    # The ratios of the tokens that follow are 0.5 / 0.25 = 2 and 0.1 / 0.4 = 1/4.
    value = build_objective("npo", {"beta": 1.0})(said())
    assert value.item() == pytest.approx(math.log(3) + math.log(1.25), abs=1e-6)
    value = build_objective("npo", {"beta": 0.5})(said())
    assert value.item() == pytest.approx(2 * (math.log(1 + 2**0.5) + math.log(1.5)), abs=1e-6)
    assert build_objective("npo", {})(said(MODEL)).item() == pytest.approx(20 * math.log(2), abs=1e-5)


def test_entropy_is_what_is_missing_to_the_highest():
    first = -0.5 * math.log(0.5) - 0.5 * math.log(0.25)
    second = -0.8 * math.log(0.8) - 0.2 * math.log(0.1)
    assert OBJECTIVES["entropy"]()(said()).item() == pytest.approx(math.log(3) - (first + second) / 2, abs=1e-6)
    assert OBJECTIVES["entropy"]()(said([[1 / 3] * 3] * 2)).item() == pytest.approx(0.0, abs=1e-6)


def test_bounded_loss_is_what_the_mean_loss_lacks_to_the_bound():
    # The tokens that follow have probabilities 1/2 and 1/10: a mean loss of log(20) / 2 = 1.498.
    assert build_objective("bounded_loss", {"bound": 2.0})(said()).item() == pytest.approx(2 - math.log(20) / 2)
    assert build_objective("bounded_loss", {"bound": 1.4})(said()).item() == 0


def test_bounded_token_loss_lets_no_token_make_up_for_another():
    # Only the first token, of probability 1/2, is below a bound of 1.4.
    value = build_objective("bounded_token_loss", {"bound": 1.4})(said()).item()
    assert value == pytest.approx((1.4 - math.log(2)) / 2)


@pytest.mark.parametrize("name", ["uniform", "reference", "npo", "entropy", "bounded_loss", "bounded_token_loss"])
def test_descending_an_objective_makes_the_next_token_unlikely_and_stays_above_zero(name):
    logits = torch.tensor([[3.0, 0.0, 0.0], [2.0, 0.0, 1.0]], requires_grad=True)
    model = logits.detach().softmax(dim=1).tolist()
    values = []
    for _ in range(300):
        predictions = said(model=model, targets=(0, 0))._replace(edited=logits.log_softmax(dim=1))
        values.append(OBJECTIVES[name]()(predictions))
        (gradient,) = torch.autograd.grad(values[-1], logits)
        with torch.no_grad():
            logits -= 0.5 * gradient
    assert 0 <= values[-1] < 0.75 * values[0]
    assert (logits.softmax(dim=1)[:, 0] < 0.5).all()
    assert torch.isfinite(logits).all()


def test_only_npo_asks_for_the_unedited_model_on_forget_text():
    assert [name for name, objective in OBJECTIVES.items() if objective.needs_model] == ["npo"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unifrm", {}, "Did you mean 'uniform'"),
        ("uniform", {"beta": 1.0}, "Unknown key"),
        ("npo", {"beta": "1"}, "must be of type float"),
        ("npo", {"beta": 0.0}, "must be above 0"),
        ("bounded_loss", {"bound": -1.0}, "must be above 0"),
    ],
)
def test_wrong_objectives_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_objective(name, options)


def test_an_objective_name_is_taken_once():
    class Another(UnlearningObjective):
        def __call__(self, said):
            return said.edited.sum()

    with pytest.raises(ValueError, match="already registered"):
        register_objective("npo")(Another)
    assert register_objective("npo")(OBJECTIVES["npo"]) is OBJECTIVES["npo"]
