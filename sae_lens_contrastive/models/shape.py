"""Size and shape of a model by name, without its weights and, for embedded models and Gemma, without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from transformer_lens.loading_from_pretrained import get_official_model_name, get_pretrained_model_config
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.models.embedded import EMBEDDED_MODELS, embedded_model_config
from sae_lens_contrastive.models.loading import check_model_name, why_no_hub


@dataclass(frozen=True)
class ModelShape:
    """What the cost of a model depends on."""

    n_layers: int
    """Transformer blocks."""
    d_model: int
    """Width of the residual stream."""
    d_mlp: int
    """Width of the hidden layer of a block's MLP."""
    n_heads: int
    """Attention heads of a block."""
    d_head: int
    """Width of a head."""
    d_vocab: int
    """Tokens of the vocabulary."""
    n_parameters: int
    """Parameters of the whole model, tied embeddings counted once."""
    n_block_parameters: int
    """Parameters of one block, the mean over blocks."""


def model_shape(name: str) -> ModelShape:
    """Shape of a model that `load_model` knows.

    An embedded model or a folder has its configuration at hand; of any other model it is taken from the local cache of
    the hub, from the shapes that TransformerLens carries (Gemma, Llama), or from the hub, in this order. Raises
    `UserError` for an unknown name and for a configuration that is in none of these places.
    """
    check_model_name(name)
    if name in EMBEDDED_MODELS:
        return shape_of(embedded_model_config(name))
    if Path(name).is_dir():
        try:
            return shape_of(AutoConfig.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise UserError(f"The shape of the model in {name} cannot be read: {first_line(error)}") from error
    official = get_official_model_name(name)
    try:
        return shape_of(AutoConfig.from_pretrained(official, local_files_only=True))
    except OSError:
        pass
    try:
        return _from_transformer_lens(get_pretrained_model_config(official, local_files_only=True))
    except OSError:
        return _from_hub(name, official)


def _from_hub(name: str, official: str) -> ModelShape:
    if (reason := why_no_hub(partial(HfApi().model_info, official))) is not None:
        raise UserError(f"The shape of {name!r} is not known here and the Hugging Face hub does not answer: {reason}")
    try:
        return shape_of(AutoConfig.from_pretrained(official))
    except (OSError, ValueError) as error:
        raise UserError(f"The shape of {name!r} could not be read from the hub: {first_line(error)}") from error


def shape_of(config: PretrainedConfig) -> ModelShape:
    """Shape of a transformers model by its configuration: its parameters are counted without memory for them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    text: Any = config.get_text_config()
    in_blocks = sum(size for name, size in sizes.items() if re.search(r"\.\d+\.", name))
    d_model, n_heads = text.hidden_size, text.num_attention_heads
    d_mlp = next((getattr(text, key) for key in ("intermediate_size", "n_inner") if getattr(text, key, None)), None)
    return ModelShape(
        n_layers=text.num_hidden_layers,
        d_model=d_model,
        d_mlp=d_mlp or 4 * d_model,
        n_heads=n_heads,
        d_head=getattr(text, "head_dim", None) or d_model // n_heads,
        d_vocab=text.vocab_size,
        n_parameters=sum(sizes.values()),
        n_block_parameters=in_blocks // text.num_hidden_layers,
    )


def _from_transformer_lens(config: Any) -> ModelShape:
    """Count the parameters of a decoder with RMSNorm and without biases, as Gemma and Llama are.

    block = d_model d_head (2 n_heads + 2 n_key_value_heads) + (3 if gated else 2) d_model d_mlp + norms d_model;
    model = n_layers block + (1 if tied else 2) d_vocab d_model + d_model.
    """
    n_key_value_heads = config.n_key_value_heads or config.n_heads
    attention = config.d_model * config.d_head * 2 * (config.n_heads + n_key_value_heads)
    mlp = (3 if config.gated_mlp else 2) * config.d_model * config.d_mlp
    n_norms = 4 if config.use_normalization_before_and_after else 2
    block = attention + mlp + n_norms * config.d_model
    # TransformerLens unties embeddings and does not say which models tie them: Gemma's do, the rest is an upper bound.
    n_embeddings = 1 if "Gemma" in config.original_architecture else 2
    return ModelShape(
        n_layers=config.n_layers,
        d_model=config.d_model,
        d_mlp=config.d_mlp,
        n_heads=config.n_heads,
        d_head=config.d_head,
        d_vocab=config.d_vocab,
        n_parameters=config.n_layers * block + n_embeddings * config.d_vocab * config.d_model + config.d_model,
        n_block_parameters=block,
    )
