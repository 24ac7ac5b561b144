"""Edits of a random SAE, and what they do computed the plain way: one sequence at a time through the whole model."""

import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.interventions import Clamp, decoder_rows, feature_acts
from sae_lens_contrastive.unlearning.measures import SaeEdit

HOOK = "blocks.19.hook_resid_post"
FEATURES = (3, 7, 20, 31)


def random_sae(d_in=32, d_sae=64):
    generator = torch.Generator().manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(sae.W_enc.shape, generator=generator))
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(sae.W_dec.shape, generator=generator), dim=1))
        sae.b_enc.fill_(-0.2)
    return sae


def random_edit(multiplier=3.0, special_tokens=False):
    return SaeEdit(random_sae(), FEATURES, Clamp(multiplier), special_tokens)


def plain_logits(model, tokens, edit=None, hook_name=HOOK):
    """Logits of one sequence at all positions; -multiplier is written by hand where a feature fires."""

    def hook(residual, hook):
        change = torch.zeros_like(residual)
        for position, token in enumerate(tokens):
            if position > 0 and (edit.special_tokens or token not in model.tokenizer.all_special_ids):
                acts = feature_acts(edit.sae, residual[0, position : position + 1], edit.features)
                new = torch.where(acts > 0, -edit.intervention.multiplier, acts)
                change[0, position] = ((new - acts) @ decoder_rows(edit.sae, edit.features))[0]
        return residual + change

    with torch.no_grad():
        return model.run_with_hooks(torch.tensor([tokens]), fwd_hooks=[(hook_name, hook)] if edit else [])[0]
