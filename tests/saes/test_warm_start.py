"""A trained SAE as the beginning of a training."""

import pytest
import torch
from sae_lens import (
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
)
from sae_lens.config import SAETrainerConfig

from sae_lens_contrastive import ContrastiveSAETrainer, UserError
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.saes.warm_start import WarmStart, warm_started_sae

SIZES = {"d_in": 8, "d_sae": 24}
SOURCES = {
    "standard": (StandardSAE, StandardSAEConfig, {}),
    "topk": (TopKSAE, TopKSAEConfig, {"k": 4}),
    "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}),
}


def stock(architecture, folder, seed=0, **options):
    sae_class, config_class, own = SOURCES[architecture]
    torch.manual_seed(seed)
    sae = sae_class(config_class(**SIZES, **own, **options))
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn_like(parameter).abs() if name == "threshold" else torch.randn_like(parameter))
    sae.save_model(str(folder))
    return sae


def config(architecture, **options):
    own = {"topk": {"k": 4, "rescale_acts_by_decoder_norm": False}}.get(architecture, {})
    return TRAINING_ARCHITECTURES[architecture][1](**SIZES, **{**own, **options})


@pytest.mark.parametrize("architecture", SOURCES)
@pytest.mark.parametrize("b_dec", [True, False])
def test_the_same_architecture_starts_exactly(architecture, b_dec, tmp_path):
    source = stock(architecture, tmp_path, apply_b_dec_to_input=b_dec)
    sae = warm_started_sae(config(architecture), WarmStart(path=tmp_path))
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sae.decode(sae.encode(x)), source.decode(source.encode(x)))


@pytest.mark.parametrize(("theirs", "ours"), [(True, True), (True, False), (False, False)])
def test_topk_starts_exactly_with_and_without_rescaling(theirs, ours, tmp_path):
    source = stock("topk", tmp_path, rescale_acts_by_decoder_norm=theirs)
    sae = warm_started_sae(config("topk", rescale_acts_by_decoder_norm=ours), WarmStart(path=tmp_path))
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sae.decode(sae.encode(x)), source.decode(source.encode(x)))


def test_topk_with_rescaling_starts_exactly_from_unit_decoder_rows(tmp_path):
    """The rows of released SAEs have norm 1; with other norms the same activations would win other places."""
    source = stock("topk", tmp_path)
    with torch.no_grad():
        source.W_dec /= source.W_dec.norm(dim=1, keepdim=True)
    source.save_model(str(tmp_path))
    sae = warm_started_sae(config("topk", rescale_acts_by_decoder_norm=True), WarmStart(path=tmp_path))
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sae.decode(sae.encode(x)), source.decode(source.encode(x)))


def test_another_activation_function_keeps_the_pre_activations(tmp_path):
    source = stock("jumprelu", tmp_path)
    sae = warm_started_sae(config("topk", rescale_acts_by_decoder_norm=False), WarmStart(path=tmp_path))
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    hidden_pre = source.process_sae_in(x) @ source.W_enc + source.b_enc
    torch.testing.assert_close(sae.encode_with_hidden_pre(x)[1], hidden_pre)


def test_training_in_scaled_units_starts_from_the_same_function(tmp_path):
    """With a learning rate of 0 the trained SAE is the one it started from, scaling and folding included."""
    source = stock("topk", tmp_path)
    sae = warm_started_sae(config("topk", normalize_activations="expected_average_only_in"), WarmStart(path=tmp_path))
    generator = torch.Generator().manual_seed(2)
    batches = [5 * torch.randn(16, 8, generator=generator) for _ in range(8)]
    cfg = SAETrainerConfig(
        total_training_samples=64, train_batch_size_samples=16, lr=0.0, lr_end=0.0, n_batches_for_norm_estimate=2
    )
    ContrastiveSAETrainer(cfg, sae, iter(batches), warm_started=True).fit()
    x = batches[0]
    torch.testing.assert_close(sae.decode(sae.encode(x)), source.decode(source.encode(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_sae": 32}, r"has d_sae 24, the run has 32\. Set sae\.d_sae: 24"),
        ({"d_in": 16}, r"has d_in 8, the run has 16\. Set sae\.d_in: 8"),
    ],
)
def test_another_size_is_refused(change, message, tmp_path):
    stock("topk", tmp_path)
    cfg = TRAINING_ARCHITECTURES["topk"][1](**{**SIZES, **change}, k=4)
    with pytest.raises(UserError, match=message):
        warm_started_sae(cfg, WarmStart(path=tmp_path))


def test_an_sae_that_normalises_is_refused(tmp_path):
    stock("standard", tmp_path, normalize_activations="layer_norm")
    with pytest.raises(UserError, match="normalize_activations 'layer_norm'"):
        warm_started_sae(config("standard"), WarmStart(path=tmp_path))


def test_a_run_that_scales_each_token_or_direction_cannot_begin_so(tmp_path):
    stock("standard", tmp_path)
    with pytest.raises(UserError, match="the run has normalize_activations 'covariance_whitening'"):
        warm_started_sae(config("standard", normalize_activations="covariance_whitening"), WarmStart(path=tmp_path))


def test_a_folder_without_an_sae_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no cfg\.json"):
        warm_started_sae(config("standard"), WarmStart(path=tmp_path))


def test_a_place_is_a_folder_or_a_release():
    whole = {"path": "p", "release": "r", "sae_id": "i"}
    for given in ([], ["release"], ["sae_id"], ["path", "release"], ["path", "sae_id"], list(whole)):
        with pytest.raises(ValueError, match="either path, or release and sae_id"):
            WarmStart(**{name: whole[name] for name in given})
    for given in (["path"], ["release", "sae_id"]):
        WarmStart(**{name: whole[name] for name in given})
