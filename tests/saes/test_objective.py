"""The contrastive objective on SAELens' own classes."""

import json

import pytest
import torch
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUSAE,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardSAE,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKSAE,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAE,
)
from sae_lens.saes.sae import TrainStepInput

from sae_lens_contrastive import ConfigError, ContrastiveTopKTrainingSAEConfig
from sae_lens_contrastive.losses import FORGET, RETAIN
from sae_lens_contrastive.saes import (
    TRAINING_ARCHITECTURES,
    BatchContext,
    ContrastiveMatryoshkaBatchTopKTrainingSAEConfig,
)

SIZES = {"d_in": 8, "d_sae": 24}
RESERVING = {"output_kl": {"coefficient": 1.0, "features": "reserved"}}
TERMS = {"forget_margin": {"coefficient": 0.5, "n_features": 2, "warm_up_steps": 10}}
HOSTS = {
    "standard": (StandardTrainingSAE, StandardTrainingSAEConfig, StandardSAE, {"l1_coefficient": 0.3}),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig, TopKSAE, {"k": 4}),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, JumpReLUSAE, {"k": 4}),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, JumpReLUSAE, {"l0_coefficient": 0.3}),
    "matryoshka_batchtopk": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        JumpReLUSAE,
        {"k": 4, "matryoshka_widths": [6, 12, 24]},
    ),
}
COEFFICIENTS = {"l0": 0.3, "l1": 0.3}
each_architecture = pytest.mark.parametrize(
    ("ours", "our_config", "host", "host_config", "inference", "options"),
    [(*TRAINING_ARCHITECTURES[name], *HOSTS[name]) for name in TRAINING_ARCHITECTURES],
    ids=list(TRAINING_ARCHITECTURES),
)


def step_input(x, coefficients):
    return TrainStepInput(
        sae_in=x, coefficients=coefficients, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )


@each_architecture
def test_without_terms_the_loss_is_the_hosts(ours, our_config, host, host_config, inference, options):
    torch.manual_seed(0)
    stock = host(host_config(**SIZES, **options))
    mine = ours(our_config(**SIZES, **options))
    mine.load_state_dict(stock.state_dict())
    x = torch.randn(16, 8)
    expected = stock.training_forward_pass(step_input(x, COEFFICIENTS))
    found = mine.training_forward_pass(step_input(x, COEFFICIENTS))
    assert found.losses.keys() == expected.losses.keys()
    assert torch.equal(found.loss, expected.loss)
    assert mine.get_coefficients() == stock.get_coefficients()


@each_architecture
def test_a_term_adds_coefficient_times_value(ours, our_config, host, host_config, inference, options):
    torch.manual_seed(0)
    sae = ours(our_config(**SIZES, **options, loss_terms=TERMS))
    x = torch.randn(16, 8)
    sae.batch_context = BatchContext(domains=torch.tensor([FORGET] * 8 + [RETAIN] * 8))
    off = sae.training_forward_pass(step_input(x, {**COEFFICIENTS, "forget_margin": 0.0}))
    on = sae.training_forward_pass(step_input(x, {**COEFFICIENTS, "forget_margin": 0.25}))
    hidden_pre = on.hidden_pre
    value = torch.relu(hidden_pre[8:, :2]).sum(1).mean() + torch.relu(1 - hidden_pre[:8, :2].amax(1)).mean()
    assert on.losses["forget_margin_loss"].item() == pytest.approx(0.25 * value.item(), rel=1e-5)
    assert (on.loss - off.loss).item() == pytest.approx(0.25 * value.item(), rel=1e-4)
    assert tuple(sae.get_coefficients()["forget_margin"]) == (0.5, 10)


@each_architecture
def test_it_is_saved_as_a_stock_sae(ours, our_config, host, host_config, inference, options, tmp_path):
    torch.manual_seed(0)
    sae = ours(our_config(**SIZES, **options, loss_terms=TERMS))
    sae.W_dec.data *= torch.rand(24, 1) + 0.5
    x = torch.randn(16, 8)
    sae.save_inference_model(tmp_path)
    loaded = SAE.load_from_disk(tmp_path)
    assert type(loaded) is inference
    if not isinstance(sae, BatchTopKTrainingSAE):
        # One that shares its activations out over a batch is saved with one threshold for all batches.
        torch.testing.assert_close(loaded.encode(x), sae.encode(x))
        torch.testing.assert_close(loaded(x), sae(x))
    details = json.loads((tmp_path / "cfg.json").read_text())["metadata"]["training_architecture_details"]
    assert details["loss_terms"] == TERMS


@each_architecture
def test_a_checkpoint_comes_back_as_a_training_sae(ours, our_config, host, host_config, inference, options, tmp_path):
    sae = ours(our_config(**SIZES, **options, loss_terms=TERMS, grouping={"percentile": 80.0}))
    sae.save_model(tmp_path)
    loaded = TrainingSAE.load_from_disk(tmp_path)
    assert type(loaded) is ours
    assert loaded.cfg.loss_terms == TERMS
    assert loaded.cfg.grouping == {"percentile": 80.0}
    assert torch.equal(loaded.W_enc, sae.W_enc)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_terms": {"group_contrastive": {"coefficient": 0.1}}}, "has no grouping"),
        ({"grouping": {"percentil": 3.0}}, "Did you mean 'percentile'"),
        ({"use_sparse_activations": True, "grouping": {}}, "Set use_sparse_activations: false"),
        ({"d_sae": 0}, "d_sae is 0"),
        ({"k": 25}, r"from 1 to d_sae \(24\)"),
        (
            {"normalize_activations": "layer_norm"},
            r"auxiliary loss .* 'layer_norm'\. Use none",
        ),
        ({"whitening": {}, "coverage": {}, "loss_terms": RESERVING}, "coverage begins reserved features anew, but"),
        *(
            (
                {"loss_terms": {name: {"coefficient": 1.0, "n_features": 25}}},
                rf"loss_terms\.{name} reserves 25 features, but d_sae is 24\. Lower its n_features to at most 24",
            )
            for name in ("forget_margin", "sentence_margin", "output_kl")
        ),
    ],
)
def test_wrong_configurations_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ContrastiveTopKTrainingSAEConfig(**{**SIZES, "k": 4, **options})


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        (
            "standard",
            {"normalize_activations": "constant_norm_rescale", "reinitialisation": {}},
            "reinitialisation does not work with normalize_activations 'constant_norm_rescale'",
        ),
        ("jumprelu", {"jumprelu_sparsity_loss_mode": "quadratic"}, "target_l0 is None"),
        ("jumprelu", {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 0}, "target_l0 is 0"),
        ("jumprelu", {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": 25}, r"target_l0 is 25.*d_sae \(24\)"),
        ("jumprelu", {"jumprelu_bandwidth": 0.0}, r"jumprelu_bandwidth is 0\.0; it must be above 0"),
        ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [8, 8]}, r"matryoshka_widths is \[8, 8\]"),
        ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [0, 8]}, r"matryoshka_widths is \[0, 8\]"),
        ("matryoshka_batchtopk", {"k": 4, "matryoshka_widths": [8, 48]}, r"at most at d_sae \(24\)"),
    ],
)
def test_what_the_host_refuses_only_in_training_is_refused_before(architecture, options, message):
    with pytest.raises(ConfigError, match=message):
        TRAINING_ARCHITECTURES[architecture][1](**SIZES, **options)


def test_matryoshka_levels_have_a_default():
    found = ContrastiveMatryoshkaBatchTopKTrainingSAEConfig(**SIZES, k=4).matryoshka_widths
    assert found == [1, 3, 6, 12, 24]


@each_architecture
def test_gradients_of_the_activations_are_kept_when_asked_for(ours, our_config, host, host_config, inference, options):
    torch.manual_seed(0)
    sae = ours(our_config(**SIZES, **options))
    x = torch.randn(16, 8)
    for keep in (False, True):
        sae.batch_context = BatchContext(keep_gradients=keep)
        output = sae.training_forward_pass(step_input(x, COEFFICIENTS))
        output.loss.backward()
        assert output.feature_acts.retains_grad == keep
    gradient = output.feature_acts.grad
    # d mse / d z_i = 2 / batch * (sae_out - sae_in) . d_i, to which the host's other losses add.
    if ours is TRAINING_ARCHITECTURES["standard"][0]:
        sparsity = 0.3 / 16 * sae.W_dec.norm(dim=1) * (output.feature_acts > 0)
        expected = 2 / 16 * (output.sae_out - x) @ sae.W_dec.T + sparsity
        torch.testing.assert_close(gradient, expected)
    assert gradient is not None
    assert gradient.abs().sum() > 0


@each_architecture
def test_the_batch_does_not_reach_the_encoder_of_shielded_features(
    ours, our_config, host, host_config, inference, options
):
    torch.manual_seed(0)
    sae = ours(our_config(**SIZES, **options))
    x = torch.randn(64, 8)
    gradients = {}
    for n in (0, 2):
        sae.zero_grad()
        sae.batch_context = BatchContext(n_shielded=n)
        sae.training_forward_pass(step_input(x, COEFFICIENTS)).loss.backward()
        gradients[n] = {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}
    assert torch.all(gradients[2]["b_enc"][:2] == 0)
    assert torch.all(gradients[0]["b_enc"][:2] != 0)
    torch.testing.assert_close(gradients[2]["b_enc"][2:], gradients[0]["b_enc"][2:])
    assert gradients[2]["W_dec"][:2].abs().sum() > 0


def test_a_pruning_without_importance_is_refused():
    with pytest.raises(ConfigError, match=r"Add importance: \{\}"):
        ContrastiveTopKTrainingSAEConfig(**SIZES, k=4, pruning={})
