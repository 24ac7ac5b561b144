"""White coordinates, and an encoder that learns in them."""

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.whitening import (
    Gradients,
    WhiteFeatures,
    Whitening,
    WhiteningOptions,
    whitening_of,
)


def mixed(n=20_000):
    """Correlated inputs whose dimensions differ in size by a thousand."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]])
    return torch.randn(n, 3, generator=generator) @ mix * torch.tensor([1.0, 10.0, 1000.0]) + 5


def test_white_inputs_are_centred_uncorrelated_and_of_one_size():
    x = mixed()
    white = (x - (found := whitening_of(x, 1e-3)).mean) @ found.map
    assert white.mean(dim=0).abs().max() < 1e-3
    assert torch.allclose(white.T @ white / len(x), torch.eye(3), atol=0.02)


def test_full_shrinkage_scales_each_dimension_alone():
    x = mixed()
    found = whitening_of(x, 1.0)
    assert torch.allclose(found.map, torch.diag(1 / x.std(dim=0, correction=0)), rtol=1e-4)


def test_huge_inputs_count_for_nothing_and_their_kind_is_not_far_out():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5000, 6, generator=generator)
    direction = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    plain = whitening_of(x, 1e-3)
    x[:3] += 500 * direction
    found = whitening_of(x, 1e-3)
    unseen = torch.randn(6, generator=generator) + 800 * direction
    assert ((unseen - found.mean) @ found.map).norm() < 6
    assert ((unseen - plain.mean) @ plain.map).norm() > 1000
    white = (x[3:] - found.mean) @ found.map
    moments = white.T @ white / len(white)
    # One of six directions is taken out; the others are as white as before.
    assert torch.linalg.eigvalsh(moments).tolist() == pytest.approx([0, 1, 1, 1, 1, 1], abs=0.02)


def test_a_dimension_that_never_changes_is_no_problem():
    x = mixed()
    x[:, 2] = 7.0
    assert bool(torch.isfinite(whitening_of(x, 0.1).map).all())


def features(whitening, **options):
    rows = torch.tensor([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]])
    return WhiteFeatures(
        whitening, rows, torch.full((2,), 0.7), WhiteningOptions(**options), torch.Generator().manual_seed(0)
    )


def gradients(columns=None, biases=None, rows=None):
    return Gradients(
        torch.zeros(3, 2) if columns is None else columns,
        torch.zeros(2) if biases is None else biases,
        torch.zeros(2, 3) if rows is None else rows,
    )


def test_columns_on_inputs_are_the_weights_on_white_inputs():
    x = mixed(100)
    whitening = whitening_of(x, 0.1)
    white = features(whitening)
    columns, biases = white.columns()
    expected = 0.7 + 0.1 * ((x - whitening.mean) @ whitening.map @ white.weight + white.bias)
    assert torch.allclose(x @ columns + biases, expected, atol=1e-4)


def test_gradients_reach_the_white_weights_by_the_chain_rule():
    x = mixed(100)
    whitening = whitening_of(x, 0.1)
    white = features(whitening)
    columns, biases = (tensor.requires_grad_() for tensor in white.columns())
    (x @ columns + biases).square().mean().backward()
    direct = (0.7 + 0.1 * ((x - whitening.mean) @ whitening.map @ white.weight + white.bias)).square().mean()
    expected = torch.autograd.grad(direct, [white.weight, white.bias])
    assert columns.grad is not None
    assert biases.grad is not None
    white.step(gradients(columns.grad, biases.grad), 0.0, 0.0)
    assert white.weight.grad is not None
    assert white.bias.grad is not None
    assert torch.allclose(white.weight.grad, expected[0], rtol=1e-3, atol=1e-5)
    assert torch.allclose(white.bias.grad, expected[1], rtol=1e-3, atol=1e-5)


def test_a_first_step_is_as_long_as_the_scheduled_learning_rate():
    white = features(Whitening(torch.eye(3), torch.zeros(3)), lr=0.01, weight_decay=0.0)
    before = white.weight.detach().clone()
    white.step(gradients(torch.full((3, 2), 4.0), torch.ones(2)), 0.5, 1.0)
    assert torch.allclose(before - white.weight, torch.full((3, 2), 0.005), atol=1e-6)


def test_decoder_rows_start_where_they_were_and_turn_at_norm_one():
    white = features(Whitening(torch.eye(3), torch.zeros(3)), decoder_lr=0.1)
    assert torch.allclose(white.rows, torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]]))
    white.step(gradients(rows=torch.tensor([[0.0, 5.0, 0.0], [0.0, 0.0, 0.0]])), 0.0, 0.5)
    expected = torch.tensor([0.6, -0.05, 0.8])
    assert torch.allclose(white.rows[0], expected / expected.norm(), atol=1e-5)
    assert torch.equal(white.rows[1], torch.tensor([0.0, 1.0, 0.0]))


def test_saved_features_go_on_as_if_they_had_not_stopped():
    whitening = whitening_of(mixed(), 0.1)
    one, two = features(whitening), features(whitening)
    steps = [gradients(torch.randn(3, 2), torch.randn(2), torch.randn(2, 3)) for _ in range(4)]
    for each in steps[:2]:
        one.step(each, 1.0, 1.0)
    two.load_state_dict({name: tensor.clone() for name, tensor in one.state_dict().items()})
    for each in steps[2:]:
        one.step(each, 1.0, 1.0)
        two.step(each, 1.0, 1.0)
    for name in ("weight", "bias", "rows"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "must be above 0"),
        ({"decoder_lr": 0.0}, "must be above 0"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"scale": 0.0}, "must be above 0"),
        ({"shrinkage": 0.0}, "at most 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        WhiteningOptions(**options)
