"""A random SAE at a hook of the tiny Gemma-2, and edits of it."""

import pytest
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.forget_edit import ForgetEdit
from sae_lens_contrastive.forget_edit.edit import directions

HOOK = "blocks.19.hook_resid_post"
FEATURES = [3, 7, 20, 31]


@pytest.fixture
def sae():
    generator = torch.Generator().manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(d_in=32, d_sae=64, apply_b_dec_to_input=False))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(sae.W_enc.shape, generator=generator))
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(sae.W_dec.shape, generator=generator), dim=1))
        sae.b_enc.fill_(-6.0)
    return sae


@pytest.fixture
def make_edit(sae):
    values = {"hook_name": HOOK, "d_sae": 64, "features": FEATURES, "directions": directions(sae, FEATURES)}
    gated = {"intervention": "gated", "intervention_options": {"multiplier": 30.0}, "gate_threshold": 0.3}
    return lambda **changes: ForgetEdit.model_validate({**values, **gated, **changes})
