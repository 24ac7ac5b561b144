"""What a model says by itself, by its library's own generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge


@torch.no_grad()
def greedy_continuations(model: Any, sequences: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """The most likely token again and again, up to a special one or `max_new_tokens`, after sequences of one length.

    `model` is a TransformerBridge or a HookedTransformer. What a model's own settings say of sampling and of penalties
    is left out.
    """
    tokens = torch.tensor([list(sequence) for sequence in sequences], dtype=torch.long, device=model.cfg.device)
    special = sorted(model.tokenizer.all_special_ids)
    if isinstance(model, TransformerBridge):
        said = model.original_model.generate(  # pyright: ignore[reportCallIssue]
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=special or None,
            # Follows a sequence that has ended, and is cut off with its end.
            pad_token_id=special[0] if special else 0,
        )
    else:
        said = model.generate(
            tokens, max_new_tokens=max_new_tokens, do_sample=False, stop_at_eos=False, prepend_bos=False, verbose=False
        )
    return [_up_to(row, set(special)) for row in said[:, tokens.shape[1] :].tolist()]


def _up_to(tokens: list[int], ends: set[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:end]
