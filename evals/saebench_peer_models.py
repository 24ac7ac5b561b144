"""Models for the comparison with SAEBench: both of TransformerLens' model classes, and Gemma-2-2B's shape."""

from __future__ import annotations

from typing import Any

import torch
from sae_lens.constants import DTYPE_MAP
from saebench_peer_cases import Subject
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.loading_from_pretrained import convert_hf_model_config
from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from sae_lens_contrastive.models import SMOLLM2, HookedBridge, load_model
from sae_lens_contrastive.models.embedded import embedded_model_folder


def load_subject(subject: Subject, model_class: str, *, device: str, dtype: str) -> Any:
    """The subject's model as a TransformerBridge (`bridge`) or as a HookedTransformer (`hooked_transformer`)."""
    if subject.name == "random-gemma-2-2b":
        return random_gemma_2(device, dtype)
    if model_class == "bridge":
        return load_model(subject.name, device=device, dtype=dtype)
    return _hooked_transformer(subject.name, device, dtype)


def random_gemma_2(device: str, dtype: str, **sizes: Any) -> HookedBridge:
    """Gemma-2-2B's shape, or another by `sizes` of its configuration, with random weights and no download.

    On SmolLM2's tokenizer: real text in real numbers of tokens.
    """
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_folder(SMOLLM2))
    config = Gemma2Config(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=DTYPE_MAP[dtype],
        **sizes,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = Gemma2ForCausalLM(config)
    model.to(DTYPE_MAP[dtype])
    bridge = HookedBridge.from_hf_model(model, tokenizer, "google/gemma-2-2b", device)
    bridge.requires_grad_(False)
    return bridge


def _hooked_transformer(name: str, device: str, dtype: str) -> HookedTransformer:
    """An embedded model with TransformerLens' own forward pass, its weights unprocessed.

    TransformerLens knows both architectures, not these two models by name; so configuration and weights are converted
    by its own functions.
    """
    folder = embedded_model_folder(name)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    hf_model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE_MAP[dtype])
    is_gemma = hf_model.config.model_type == "gemma2"
    values = _gemma_2_values(hf_model.config) if is_gemma else convert_hf_model_config(str(folder))
    values |= {"tokenizer_name": None, "model_name": name, "device": device, "dtype": DTYPE_MAP[dtype]}
    fields = HookedTransformerConfig.__dataclass_fields__
    config = HookedTransformerConfig.from_dict({key: value for key, value in values.items() if key in fields})
    model = HookedTransformer(config, tokenizer=tokenizer)
    weights = (convert_gemma_weights if is_gemma else convert_llama_weights)(hf_model, config)
    model.load_and_process_state_dict(
        weights,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
        refactor_factored_attn_matrices=False,
    )
    model.requires_grad_(False)
    return model.eval()


def _gemma_2_values(config: Any) -> dict[str, Any]:
    """TransformerLens' configuration of Gemma-2-2B in another size."""
    return convert_hf_model_config("google/gemma-2-2b-it") | {
        "d_model": config.hidden_size,
        "d_head": config.head_dim,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "window_size": config.sliding_window,
        "d_vocab": config.vocab_size,
        "attn_scale": config.query_pre_attn_scalar**0.5,
    }
