"""Whole sequences of a corpus with their residual stream, for losses on what the model says."""

from __future__ import annotations

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

    They stay on the model's device and in its number format. Raises `UserError` if the corpus, called by its `label`,
    has fewer contexts.
    """
    contexts: list[Tensor] = []
    for _ in range(n_sequences):
        try:
            contexts.append(store.get_batch_tokens(batch_size=1, raise_at_epoch_end=True))
        except StopIteration:
            raise UserError(
                f"The {label} corpus has {len(contexts)} contexts of {store.context_size} tokens, fewer than the "
                f"{n_sequences} sequences asked for. Give more text, or ask for fewer or shorter sequences."
            ) from None
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
