"""Residual-stream activations of a corpus, computed once and shared by all SAEs of a hook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning.batching import (
    batches_by_length,
    bos_tokens,
    check_fits_context,
    editable_tokens,
    encode_text,
    pad_right,
)


@torch.no_grad()
def corpus_residuals(
    model: Any,
    hook_name: str,
    texts: Iterable[str],
    *,
    context_size: int,
    max_tokens: int,
    batch_tokens: int = 4096,
    title: str = "corpus",
) -> Float[Tensor, "n_tokens d_in"]:
    """Residual stream at the hook on the first `max_tokens` tokens that count, in no particular order.

    Each document begins a context of its own; each context begins with the BOS token and has at most
    `context_size` tokens. Position 0 and special tokens are left out. Raises `UserError` if no token counts.
    """
    check_fits_context(context_size, model, "context_size", "Set a smaller context_size.")
    contexts, counted = _contexts(model.tokenizer, texts, context_size, max_tokens)
    n_tokens = sum(map(sum, counted))
    if n_tokens == 0:
        raise UserError(f"The {title} holds no token but special ones. Give a corpus with text in it.")
    parts: list[Tensor] = []
    with tqdm(total=n_tokens, desc=f"reading {title}", unit="tok", unit_scale=True) as progress:
        for batch in batches_by_length([len(context) for context in contexts], batch_tokens):
            tokens = pad_right([contexts[i] for i in batch], model)
            keep = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
            for row, i in enumerate(batch):
                keep[row, : len(contexts[i])] = torch.tensor(counted[i], device=keep.device)
            parts.append(residual_at_hook(model, hook_name, tokens)[keep])
            progress.update(len(parts[-1]))
    return torch.cat(parts)


def _contexts(
    tokenizer: Any, texts: Iterable[str], context_size: int, max_tokens: int
) -> tuple[list[list[int]], list[list[bool]]]:
    special, bos = set(tokenizer.all_special_ids), bos_tokens(tokenizer)
    step = context_size - len(bos)
    contexts: list[list[int]] = []
    counted: list[list[bool]] = []
    left = max_tokens
    for text in texts:
        tokens = encode_text(tokenizer, text)
        for start in range(0, len(tokens), step):
            context = [*bos, *tokens[start : start + step]]
            counts = editable_tokens(context, special)
            # Cut where the budget ends, so that the number of tokens is exact.
            while sum(counts) > left:
                context.pop()
                counts.pop()
            contexts.append(context)
            counted.append(counts)
            left -= sum(counts)
            if left == 0:
                return contexts, counted
    return contexts, counted
