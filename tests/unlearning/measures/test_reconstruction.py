import pytest
import torch
from made_edits import HOOK, random_sae
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning.corpus import document_contexts
from sae_lens_contrastive.unlearning.measures import ReconstructionOptions, reconstruction

TEXTS = ["A text longer than the sliding window.", "Short<end_of_turn>one."]


@pytest.fixture
def contexts(tiny):
    return document_contexts(tiny.tokenizer, TEXTS, context_size=30, max_tokens=1000)


def test_a_perfect_reconstruction_recovers_everything(tiny, contexts):
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=64, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([torch.eye(32), -torch.eye(32)], dim=1))
        sae.W_dec.copy_(sae.W_enc.T)
    found = reconstruction(tiny, HOOK, sae, contexts, ReconstructionOptions(), batch_tokens=40)
    assert found.n_tokens == contexts.n_tokens
    assert found.explained_variance == pytest.approx(1)
    assert found.l0 == 32
    assert found.loss_recovered == pytest.approx(1, abs=1e-4)
    assert found.loss == pytest.approx(found.reconstructed_loss, abs=1e-5)


def test_the_figures_are_those_of_a_plain_forward(tiny, contexts):
    sae, squared_error, inputs, losses = random_sae(), 0.0, [], {"loss": [], "reconstructed_loss": []}
    special = set(tiny.tokenizer.all_special_ids)
    for tokens, counted in zip(contexts.tokens, contexts.counted, strict=True):
        x = residual_at_hook(tiny, HOOK, torch.tensor([tokens]))[0]
        spared = torch.tensor([token in special for token in tokens])[:, None]
        replaced = torch.where(spared, x, sae.decode(sae.encode(x))).detach()
        for name, hooks in (("loss", []), ("reconstructed_loss", [(HOOK, lambda _x, hook, new=replaced: new[None])])):
            with torch.no_grad():
                log_probs = tiny.run_with_hooks(torch.tensor([tokens]), fwd_hooks=hooks)[0].log_softmax(-1)
            losses[name] += [-log_probs[i - 1, token].item() for i, token in enumerate(tokens) if counted[i]]
        kept = x[torch.tensor(counted)]
        squared_error += (kept - sae.decode(sae.encode(kept))).square().sum().item()
        inputs.append(kept)
    x = torch.cat(inputs)
    found = reconstruction(tiny, HOOK, sae, contexts, ReconstructionOptions(), batch_tokens=40)
    assert found.explained_variance == pytest.approx(
        1 - squared_error / (x - x.mean(0)).square().sum().item(), rel=1e-4
    )
    assert found.l0 == pytest.approx((sae.encode(x) > 0).sum().item() / len(x))
    for name, values in losses.items():
        assert getattr(found, name) == pytest.approx(sum(values) / len(values), abs=1e-4), name
    assert found.loss_recovered < 1
