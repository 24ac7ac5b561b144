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
    Clamp,
    FittedGated,
    Gated,
    HotTokenClamp,
    Zero,
    check_editable,
    decoder_rows,
    edit_residual,
    editing,
    feature_acts,
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


@pytest.mark.parametrize("intervention", [Clamp(3.0), Zero(), HotTokenClamp(3.0)], ids=repr)
def test_edit_equals_full_decoding_with_the_error_term(sae, residual, intervention):
    z = sae.encode(residual)
    z_new = z.clone()
    hot = (z[..., FEATURES] > 0).any(-1)
    for feature in FEATURES:
        value = 0.0 if isinstance(intervention, Zero) else -3.0
        where = hot if isinstance(intervention, HotTokenClamp) else z[..., feature] > 0
        z_new[..., feature] = torch.where(where, value, z[..., feature])
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


def test_a_wide_dictionary_is_encoded_in_small_batches(residual, monkeypatch):
    sae, tokens = _saes()["topk"], residual.flatten(0, 1)
    expected = feature_acts(sae, tokens, FEATURES)
    seen, encode = [], sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: seen.append(len(x)) or encode(x))
    monkeypatch.setattr(editing, "_MAX_ACTIVATIONS", 4 * D_SAE)
    torch.testing.assert_close(feature_acts(sae, tokens, FEATURES), expected)
    assert seen == [4, 4, 4, 3]


def test_a_bfloat16_residual_keeps_its_type(residual):
    sae = _saes()["standard"]
    edited = edit_residual(sae, residual.bfloat16(), FEATURES, Clamp(3.0), EDITABLE)
    assert edited.dtype == torch.bfloat16
    exact = edit_residual(sae, residual.bfloat16().float(), FEATURES, Clamp(3.0), EDITABLE)
    torch.testing.assert_close(edited.float(), exact, rtol=1e-2, atol=1e-2)


def test_a_gate_opens_row_by_row_on_counted_tokens_alone(residual):
    sae, features = _saes()["standard"], [3]
    editable = torch.ones(3, 5, dtype=torch.bool)
    fires = sae.encode(residual)[..., 3] > 0
    assert fires[:2].any(dim=1).all()
    assert not fires[1].all()
    counted = editable.clone()
    counted[1] = ~fires[1]
    gate = FittedGated(Gated(3.0), threshold=0.0)
    clamped = edit_residual(sae, residual, features, Clamp(3.0), editable)
    assert torch.equal(edit_residual(sae, residual, features, gate, editable), clamped)
    edited = edit_residual(sae, residual, features, gate, editable, counted)
    assert torch.equal(edited[1], residual[1])
    assert torch.equal(edited[0], clamped[0])
    assert not torch.equal(edited[0], residual[0])


def test_gradients_flow_through_an_edit():
    """One feature reads x_0 and writes (0, 1). Where it fires, Zero leaves (x_0, x_1 - x_0)."""
    sae = StandardSAE(StandardSAEConfig(d_in=2, d_sae=1))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0], [0.0]]))
        sae.W_dec.copy_(torch.tensor([[0.0, 1.0]]))
        sae.b_enc.zero_()
    residual = torch.tensor([[[2.0, 5.0], [-2.0, 5.0]]], requires_grad=True)
    edited = edit_residual(sae, residual, [0], Zero(), torch.ones(1, 2, dtype=torch.bool))
    assert edited.tolist() == [[[2.0, 3.0], [-2.0, 5.0]]]
    edited[..., 1].sum().backward()
    assert residual.grad is not None
    assert residual.grad.tolist() == [[[-1.0, 1.0], [0.0, 1.0]]]


def test_saes_that_cannot_be_edited_are_refused(residual):
    scaled = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, normalize_activations="layer_norm"))
    with pytest.raises(UserError, match="normalize_activations 'layer_norm'"):
        edit_residual(scaled, residual, FEATURES, Zero(), EDITABLE)
    reshaped = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, reshape_activations="hook_z"))
    with pytest.raises(UserError, match="reshape_activations 'hook_z'"):
        check_editable(reshaped)
    with pytest.raises(UserError, match="another hook"):
        check_editable(Transcoder(TranscoderConfig(d_in=D_IN, d_sae=D_SAE, d_out=D_IN, apply_b_dec_to_input=False)))
