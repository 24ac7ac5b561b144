from contextlib import nullcontext

import pytest
import torch
from made_edits import FEATURES, HOOK, plain_logits, random_edit, random_sae

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.interventions import Intervention
from sae_lens_contrastive.unlearning.corpus import document_contexts
from sae_lens_contrastive.unlearning.measures import SaeEdit, TextEffectsOptions, WeightEdit, text_effects

TEXTS = [
    "A text longer than the sliding window.",
    "Short<end_of_turn>one.",
    "The last of them, cut in the middle of it.",
]


@pytest.fixture
def contexts(tiny):
    return document_contexts(tiny.tokenizer, TEXTS, context_size=30, max_tokens=1000)


def plain_effect(model, contexts, max_tokens, edit):
    losses, edited_losses, divergences = [], [], []
    for tokens, counted in zip(contexts.tokens, contexts.counted, strict=True):
        log_p, log_q = (plain_logits(model, tokens, e).log_softmax(-1) for e in (None, edit))
        for position, token in enumerate(tokens):
            if counted[position] and len(losses) < max_tokens:
                p, q = log_p[position - 1], log_q[position - 1]
                losses.append(-p[token])
                edited_losses.append(-q[token])
                divergences.append((p.exp() * (p - q)).sum())
    return [torch.stack(values).mean().item() for values in (losses, edited_losses, divergences)]


@pytest.mark.parametrize("max_tokens", [1000, 45])
def test_loss_and_divergence_are_those_of_plain_forwards(tiny, contexts, max_tokens):
    edit = random_edit()
    options = TextEffectsOptions(max_tokens=max_tokens)
    result = text_effects(tiny, HOOK, edit, contexts, contexts.first(20), options, batch_tokens=60)
    for effect, part in ((result.forget, contexts), (result.retain, contexts.first(20))):
        loss, edited_loss, kl = plain_effect(tiny, part, max_tokens, edit)
        assert effect.n_tokens == min(max_tokens, part.n_tokens)
        assert effect.loss == pytest.approx(loss, abs=1e-5)
        assert effect.edited_loss == pytest.approx(edited_loss, abs=1e-5)
        assert effect.kl == pytest.approx(kl, abs=1e-5)
        assert effect.kl > 1e-3


def test_edited_weights_are_compared_with_the_models_own(tiny, contexts):
    weights = dict(tiny.named_parameters())
    name = next(name for name in weights if "mlp" in name)
    edit = WeightEdit({name: torch.zeros_like(weights[name])})
    result = text_effects(tiny, HOOK, edit, contexts, contexts.first(20), TextEffectsOptions())
    losses = []
    for within in (nullcontext(), edit.in_place(tiny)):
        with within:
            losses.append(plain_effect(tiny, contexts, 1000, None)[0])
    assert result.forget.loss == pytest.approx(losses[0], abs=1e-5)
    assert result.forget.edited_loss == pytest.approx(losses[1], abs=1e-5)
    assert result.forget.kl > 0


@pytest.mark.parametrize(
    "weights", [{"no.such": torch.zeros(1)}, {"model.norm._original_component.weight": torch.zeros(1)}]
)
def test_weights_that_the_model_lacks_are_refused(tiny, weights):
    with pytest.raises(ConfigError, match="has no weight"), WeightEdit(weights).in_place(tiny):
        pass


class OnlyThird(Intervention):
    """Clamps the third context of a batch alone."""

    def __call__(self, acts, tokens, /):
        return torch.where((tokens.prompt == 2)[:, None], acts - 50, acts)


def test_contexts_that_an_edit_spares_do_not_diverge_at_all(tiny, contexts):
    one = type(contexts)(contexts.tokens[:1], contexts.counted[:1])
    three = type(contexts)(contexts.tokens[:1] * 3, contexts.counted[:1] * 3)
    edit = SaeEdit(random_sae(), FEATURES, OnlyThird())
    result = text_effects(tiny, HOOK, edit, one, three, TextEffectsOptions())
    assert result.forget.kl == 0
    assert result.forget.edited_loss == result.forget.loss
    assert result.retain.kl > 0
    assert result.retain.loss == pytest.approx(result.forget.loss, abs=1e-6)
