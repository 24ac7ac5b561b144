"""Whole sequences of a corpus with their residual stream, for losses on what the model says."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Bool, Int
from sae_lens.training.activations_store import ActivationsStore
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.losses.output_space import Sequences
from sae_lens_contrastive.models import residual_at_hook


def collect_sequences(
    store: ActivationsStore, model: Any, hook_name: str, n_sequences: int, label: str = "given"
) -> Sequences:
    """The first contexts of a new store's corpus, cut as in training, with the model's residual stream at the hook.

    All of a corpus that has fewer than `n_sequences`. They stay on the model's device and in its number format. Raises
    `UserError` if the corpus, called by its `label`, has not one.
    """
    contexts: list[Tensor] = []
    with suppress(StopIteration):
        for _ in range(n_sequences):
            contexts.append(store.get_batch_tokens(batch_size=1, raise_at_epoch_end=True))
    if not contexts:
        raise UserError(
            f"The {label} corpus is shorter than one context of {store.context_size} tokens. Give more text, or lower "
            "training.context_size."
        )
    tokens = torch.cat(contexts)
    chunks = tokens.split(store.store_batch_size_prompts)
    residual = torch.cat([residual_at_hook(model, hook_name, chunk) for chunk in chunks])
    return Sequences(tokens, residual, editable_positions(tokens, model.tokenizer))


def editable_positions(tokens: Int[Tensor, "n pos"], tokenizer: Any) -> Bool[Tensor, "n pos"]:
    """Where an edit may act: neither position 0 nor a special token of the tokenizer, pads included."""
    special = torch.tensor(tokenizer.all_special_ids, dtype=tokens.dtype, device=tokens.device)
    editable = ~torch.isin(tokens, special)
    editable[:, 0] = False
    return editable
