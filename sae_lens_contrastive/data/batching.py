"""Token sequences of unequal length as padded batches of about equal size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError


def bos_tokens(tokenizer: Any) -> list[int]:
    """The token that begins every sequence, or nothing if the tokenizer has none."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text alone, without the special tokens that a tokenizer may add."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text behind the token that begins a sequence, which some chat templates write themselves."""
    tokens, bos = encode_text(tokenizer, text), bos_tokens(tokenizer)
    return tokens if tokens[: len(bos)] == bos else [*bos, *tokens]


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices, longest first, cut so that a padded batch has at most `batch_tokens` tokens or one sequence.

    Longest first: too little memory shows at once, and the time left is not underestimated.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def batches_of_one_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices, longest first, in batches without pads of at most `batch_tokens` tokens or one sequence."""
    batches = []
    for length in sorted(set(lengths), reverse=True):
        same = [index for index, each in enumerate(lengths) if each == length]
        rows = max(1, batch_tokens // max(1, length))
        batches += [same[start : start + rows] for start in range(0, len(same), rows)]
    return batches


def pad_right(sequences: Sequence[Sequence[int]], model: Any) -> Int[Tensor, "batch pos"]:
    """One row per sequence; attention is causal, so what fills the right changes nothing before it."""
    longest = max(len(sequence) for sequence in sequences)
    # The last token of a sequence serves as its pad: it exists in every vocabulary.
    rows = [[*sequence, *[sequence[-1]] * (longest - len(sequence))] for sequence in sequences]
    return torch.tensor(rows, dtype=torch.long, device=model.cfg.device)


def editable_tokens(sequence: Sequence[int], special: set[int]) -> list[bool]:
    """Tokens that count and may be edited: not the first one and no special token."""
    return [position > 0 and token not in special for position, token in enumerate(sequence)]


def check_fits_context(length: int, model: Any, what: str, fix: str) -> None:
    """Raise `ConfigError` for sequences longer than the model's context."""
    if length > model.cfg.n_ctx:
        raise ConfigError(f"{what} of {length} tokens exceeds the model's context of {model.cfg.n_ctx}. {fix}")
