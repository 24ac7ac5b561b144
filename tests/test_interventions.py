import pytest
import torch
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import (
    INTERVENTIONS,
    Clamp,
    Zero,
    check_editable,
    decoder_rows,
    edit_residual,
    feature_acts,
    intervention_class,
)

D_IN, D_SAE = 6, 16


def _randomised(sae):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae


def _saes():
    size = {"d_in": D_IN, "d_sae": D_SAE}
    saes = {
        "standard": StandardSAE(StandardSAEConfig(**size)),
        "topk": TopKSAE(TopKSAEConfig(**size, k=5)),
        "topk rescaled": TopKSAE(TopKSAEConfig(**size, k=5, rescale_acts_by_decoder_norm=True)),
        "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(**size)),
        "gated": GatedSAE(GatedSAEConfig(**size)),
    }
    return {name: _randomised(sae) for name, sae in saes.items()}


@pytest.fixture(params=["standard", "topk", "topk rescaled", "jumprelu", "gated"])
def sae(request):
    return _saes()[request.param]


@pytest.fixture
def residual():
    return torch.randn(3, 5, D_IN, generator=torch.Generator().manual_seed(1))


EDITABLE = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
FEATURES = [3, 0, 11, 7, 9, 1]


@pytest.mark.parametrize("intervention", [Clamp(3.0), Zero()], ids=repr)
def test_edit_equals_full_decoding_with_the_error_term(sae, residual, intervention):
    z = sae.encode(residual)
    z_new = z.clone()
    for feature in FEATURES:
        value = -3.0 if isinstance(intervention, Clamp) else 0.0
        z_new[..., feature] = torch.where(z[..., feature] > 0, value, z[..., feature])
    expected = sae.decode(z_new) + (residual - sae.decode(z))
    edited = edit_residual(sae, residual, FEATURES, intervention, EDITABLE)
    torch.testing.assert_close(edited[EDITABLE], expected[EDITABLE], rtol=1e-4, atol=1e-4)
    assert torch.equal(edited[~EDITABLE], residual[~EDITABLE])
    assert not torch.equal(edited[EDITABLE], residual[EDITABLE])


def test_decoder_rows_are_what_decode_adds_per_unit(sae):
    added = sae.decode(torch.eye(D_SAE)) - sae.decode(torch.zeros(1, D_SAE))
    torch.testing.assert_close(decoder_rows(sae, FEATURES), added[FEATURES].detach(), rtol=1e-4, atol=1e-4)


def test_a_training_sae_with_rescaling_uses_unit_rows():
    sae = _randomised(BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=4)))
    norms = decoder_rows(sae, range(D_SAE)).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(D_SAE))


def test_no_feature_no_change(sae, residual):
    assert torch.equal(edit_residual(sae, residual, [], Clamp(10.0), EDITABLE), residual)


def test_activations_do_not_depend_on_the_batch(sae, residual):
    tokens = residual.flatten(0, 1)
    expected = sae.encode(tokens)[:, FEATURES].detach()
    torch.testing.assert_close(feature_acts(sae, tokens, FEATURES, batch=4), expected)


def test_a_bfloat16_residual_keeps_its_type(residual):
    sae = _saes()["standard"]
    edited = edit_residual(sae, residual.bfloat16(), FEATURES, Clamp(3.0), EDITABLE)
    assert edited.dtype == torch.bfloat16
    exact = edit_residual(sae, residual.bfloat16().float(), FEATURES, Clamp(3.0), EDITABLE)
    torch.testing.assert_close(edited.float(), exact, rtol=1e-2, atol=1e-2)


def test_clamp_touches_only_what_fires():
    acts = torch.tensor([[0.0, 2.0], [-1.0, 0.5]])
    assert Clamp(4.0)(acts, torch.zeros(2, dtype=torch.long)).tolist() == [[0.0, -4.0], [-1.0, -4.0]]


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_a_multiplier_is_positive_and_finite(multiplier):
    with pytest.raises(UserError, match="multiplier is"):
        Clamp(multiplier)


def test_interventions_are_registered_by_name():
    assert INTERVENTIONS["clamp"] is Clamp
    assert intervention_class("zero") is Zero
    with pytest.raises(UserError, match="Did you mean 'clamp'"):
        intervention_class("clam")


def test_saes_that_cannot_be_edited_are_refused(residual):
    scaled = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, normalize_activations="layer_norm"))
    with pytest.raises(UserError, match="normalize_activations 'layer_norm'"):
        edit_residual(scaled, residual, FEATURES, Zero(), EDITABLE)
    reshaped = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, reshape_activations="hook_z"))
    with pytest.raises(UserError, match="reshape_activations 'hook_z'"):
        check_editable(reshaped)
    with pytest.raises(UserError, match="another hook"):
        check_editable(Transcoder(TranscoderConfig(d_in=D_IN, d_sae=D_SAE, d_out=D_IN, apply_b_dec_to_input=False)))
