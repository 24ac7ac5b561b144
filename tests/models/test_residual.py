import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook
from sae_lens_contrastive.models.residual import n_blocks_below

HOOKS = {
    "tiny": ["blocks.19.hook_resid_post", "blocks.19.hook_resid_pre", "blocks.0.hook_resid_pre", "blocks.25.hook_out"],
    "hooked_transformer": [
        "blocks.1.hook_resid_post",
        "blocks.1.hook_resid_pre",
        "blocks.0.hook_resid_pre",
        "blocks.2.hook_resid_post",
    ],
}
CASES = [(model, hook) for model, hooks in HOOKS.items() for hook in hooks]
TWO_HOOKS_EACH = [(model, hook) for model, hooks in HOOKS.items() for hook in (hooks[0], hooks[2])]
# Longer than the sliding window of 16, so that the masks of both kinds of attention matter.
TOKENS = torch.randint(5, 120, (3, 24), generator=torch.Generator().manual_seed(1))
EVERYWHERE = torch.ones_like(TOKENS, dtype=torch.bool)


@pytest.fixture
def model(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(("model", "hook"), CASES, indirect=["model"])
def test_the_two_halves_make_the_whole(model, hook):
    residual = residual_at_hook(model, hook, TOKENS)
    assert residual.shape == (3, 24, model.cfg.d_model)
    logits = ModelAboveHook(model, hook)(TOKENS, residual, EVERYWHERE)
    torch.testing.assert_close(logits, model(TOKENS).flatten(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "hook"), CASES, indirect=["model"])
def test_an_edit_of_the_residual_is_a_hook_that_edits(model, hook):
    direction = torch.linspace(-3, 3, model.cfg.d_model)
    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(hook, lambda value, hook: value + direction)])
    logits = ModelAboveHook(model, hook)(TOKENS, residual_at_hook(model, hook, TOKENS) + direction, EVERYWHERE)
    torch.testing.assert_close(logits, expected.flatten(0, 1), rtol=0, atol=1e-5)
    assert not torch.allclose(logits, model(TOKENS).flatten(0, 1), atol=1e-3)


@pytest.mark.parametrize(("model", "hook"), TWO_HOOKS_EACH, indirect=["model"])
def test_only_the_chosen_positions_are_unembedded_row_by_row(model, hook):
    positions = torch.zeros_like(EVERYWHERE)
    positions[0, 23] = positions[2, 0] = positions[2, 5] = True
    logits = ModelAboveHook(model, hook)(TOKENS, residual_at_hook(model, hook, TOKENS), positions)
    torch.testing.assert_close(logits, model(TOKENS)[[0, 2, 2], [23, 0, 5]], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "hook"), TWO_HOOKS_EACH, indirect=["model"])
def test_gradients_reach_the_residual_and_respect_causality(model, hook):
    residual = residual_at_hook(model, hook, TOKENS).clone().requires_grad_()
    positions = torch.zeros_like(EVERYWHERE)
    positions[1, 10] = True
    ModelAboveHook(model, hook)(TOKENS, residual, positions).log_softmax(-1)[0, 7].backward()
    assert residual.grad is not None
    assert residual.grad[1, 10].abs().sum() > 0
    assert residual.grad[1, 11:].abs().sum() == 0
    assert residual.grad[[0, 2]].abs().sum() == 0


@pytest.mark.parametrize(("model", "hook"), TWO_HOOKS_EACH, indirect=["model"])
def test_the_model_is_as_before_afterwards_even_after_an_error(model, hook):
    before = model(TOKENS)
    residual = residual_at_hook(model, hook, TOKENS)
    above = ModelAboveHook(model, hook)
    above(TOKENS, torch.zeros_like(residual), EVERYWHERE)
    assert torch.equal(model(TOKENS), before)
    with pytest.raises((IndexError, RuntimeError)):
        above(TOKENS, residual, EVERYWHERE[:, :7])
    assert torch.equal(model(TOKENS), before)
    _, cache = model.run_with_cache(TOKENS, names_filter=[hook])
    assert torch.equal(cache[hook], residual)


def test_nothing_above_the_hook_runs_for_the_residual(tiny):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
        for layer, block in enumerate(tiny.blocks)
    ]
    try:
        residual_at_hook(tiny, "blocks.19.hook_resid_post", TOKENS)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == list(range(20))


def test_pads_on_the_right_change_nothing_before_them(tiny):
    padded = torch.cat([TOKENS, torch.zeros((3, 6), dtype=torch.long)], dim=1)
    residual = residual_at_hook(tiny, "blocks.19.hook_resid_post", padded)
    torch.testing.assert_close(residual[:, :24], residual_at_hook(tiny, "blocks.19.hook_resid_post", TOKENS))


@pytest.mark.parametrize(
    ("hook", "n"),
    [
        ("blocks.0.hook_resid_pre", 0),
        ("blocks.0.hook_resid_post", 1),
        ("blocks.25.hook_out", 26),
        ("blocks.7.hook_in", 7),
    ],
)
def test_blocks_below_a_hook(tiny, hook, n):
    assert n_blocks_below(hook, tiny.cfg.n_layers) == n


def test_a_hook_off_the_residual_stream_is_refused(tiny):
    with pytest.raises(
        ConfigError, match=r"Unknown residual-stream hook 'blocks\.3\.hook_mlp_out'.*blocks\.L\.hook_resid_post"
    ):
        ModelAboveHook(tiny, "blocks.3.hook_mlp_out")
    with pytest.raises(ConfigError, match=r"asks for layer 30, but the model has layers 0 to 25"):
        residual_at_hook(tiny, "blocks.30.hook_resid_post", TOKENS)
