"""A corpus at the hook: its residual stream and the gradients there, computed once and shared by all SAEs of a
hook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.data.batching import (
    batches_by_length,
    bos_tokens,
    check_fits_context,
    editable_tokens,
    encode_text,
    pad_right,
)
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook

Allocate = Callable[..., Tensor]
"""Makes a tensor as `torch.empty` does, from sizes and a dtype."""

_SAEBENCH_CHUNKS = 20


@dataclass(frozen=True)
class Contexts:
    """Text as the token sequences that a model reads."""

    tokens: list[list[int]]
    """Token ids of each context."""
    counted: list[list[bool]]
    """Tokens that count in statistics; never position 0, so that every one has a token before it."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens that count."""
        return sum(map(sum, self.counted))

    def first(self, max_tokens: int) -> Contexts:
        """The beginning with at most `max_tokens` tokens that count."""
        tokens: list[list[int]] = []
        counted: list[list[bool]] = []
        left = max_tokens
        for context, counts in zip(self.tokens, self.counted, strict=True):
            if left == 0:
                break
            length = len(context)
            while sum(counts[:length]) > left:
                length -= 1
            tokens.append(context[:length])
            counted.append(counts[:length])
            left -= sum(counted[-1])
        return Contexts(tokens, counted)


@dataclass(frozen=True)
class CorpusActivations:
    """Residual stream at a hook on the tokens of a corpus that count, context by context."""

    contexts: Contexts
    """What the model read."""
    residuals: Float[Tensor, "n_tokens d_in"]
    """One row per token that counts, in host memory and in the model's own precision."""

    @property
    def context_of_token(self) -> Int[Tensor, " n_tokens"]:
        """Index of the context of each row."""
        counts = torch.tensor([sum(counted) for counted in self.contexts.counted], dtype=torch.long)
        return torch.repeat_interleave(torch.arange(len(counts)), counts)


def document_contexts(tokenizer: Any, texts: Iterable[str], context_size: int, max_tokens: int) -> Contexts:
    """Contexts with exactly the first `max_tokens` tokens that count, or all if there are fewer.

    Each document begins a context of its own; each context begins with the BOS token and has at most `context_size`
    tokens. Position 0 and special tokens do not count.
    """
    special, bos = set(tokenizer.all_special_ids), bos_tokens(tokenizer)
    step = context_size - len(bos)
    read = Contexts([], [])
    n_tokens = 0
    for text in texts:
        tokens = encode_text(tokenizer, text)
        for start in range(0, len(tokens), step):
            context = [*bos, *tokens[start : start + step]]
            counts = editable_tokens(context, special)
            if any(counts):
                read.tokens.append(context)
                read.counted.append(counts)
                n_tokens += sum(counts)
            if n_tokens >= max_tokens:
                return read.first(max_tokens)
    return read


def packed_contexts(tokenizer: Any, texts: Iterable[str], context_size: int, max_tokens: int) -> Contexts:
    """The first max_tokens // context_size contexts of exactly `context_size` tokens, as SAEBench packs them.

    Texts are joined by the EOS token and cut; the first token of each context is replaced by the BOS token, the last,
    incomplete context is dropped. Position 0, BOS, EOS and pad tokens do not count. Raises `ConfigError` if
    `max_tokens` is less than one context, `UserError` for a tokenizer without an EOS token or too little text.
    """
    n_contexts = max_tokens // context_size
    if n_contexts == 0:
        raise ConfigError(f"{max_tokens} tokens are less than one context of {context_size}. Read more tokens.")
    if tokenizer.eos_token is None:
        raise UserError("Packed contexts need an EOS token between texts; the tokenizer has none. Read by document.")
    tokens = _packed_tokens(tokenizer, tokenizer.eos_token.join(texts), n_contexts * context_size)
    bos = bos_tokens(tokenizer)
    contexts = [
        [*bos, *tokens[start + len(bos) : start + context_size]]
        for start in range(0, len(tokens) - context_size + 1, context_size)
    ]
    if not contexts:
        raise UserError(
            f"The texts fill no context of {context_size} tokens. Give more text or a smaller context_size."
        )
    uncounted = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return Contexts(contexts, [editable_tokens(context, uncounted) for context in contexts])


def corpus_residuals(
    model: Any, hook_name: str, contexts: Contexts, *, batch_tokens: int, title: str, allocate: Allocate = torch.empty
) -> Float[Tensor, "n_tokens d_in"]:
    """Residual stream at the hook on the tokens that count, in a tensor that `allocate` makes.

    Raises `UserError` if no token counts, `ConfigError` if a context exceeds the model's.
    """

    def residual(tokens: Int[Tensor, "batch pos"], _counted: Bool[Tensor, "batch pos"]) -> Tensor:
        return residual_at_hook(model, hook_name, tokens)

    return _on_counted_tokens(model, contexts, residual, batch_tokens, "reading", title, allocate)


def corpus_gradients(
    model: Any, hook_name: str, contexts: Contexts, *, batch_tokens: int, title: str, allocate: Allocate = torch.empty
) -> Float[Tensor, "n_tokens d_in"]:
    """dL/dresid at the hook in the order of `corpus_residuals`; L is the loss of the token's own context.

    L = sum over the tokens of the context that count of -log p(token | tokens before it), in nats. Raises as
    `corpus_residuals` does.
    """
    above = ModelAboveHook(model, hook_name)

    def gradient(tokens: Int[Tensor, "batch pos"], counted: Bool[Tensor, "batch pos"]) -> Tensor:
        residual = residual_at_hook(model, hook_name, tokens).detach().clone().requires_grad_()
        with torch.enable_grad():
            logits = above(tokens, residual, positions_before(counted)).float()
            loss = torch.nn.functional.cross_entropy(logits, tokens[counted], reduction="sum")
            return torch.autograd.grad(loss, residual)[0]

    return _on_counted_tokens(model, contexts, gradient, batch_tokens, "gradients on", title, allocate)


def mask_right(rows: Sequence[Sequence[bool]], like: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """One row per sequence, False on the pads of `like`."""
    width = like.shape[1]
    padded = [[*row, *[False] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.bool, device=like.device)


def positions_before(counted: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """Positions whose next token counts: there the model predicts it. Position 0 must not count."""
    return torch.nn.functional.pad(counted[:, 1:], (0, 1))


def _packed_tokens(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """Tokens as SAEBench makes them: in chunks of characters, with the special tokens that the tokenizer adds to
    each, pads taken out (that takes out EOS where the two are one)."""
    length = (len(text) - 1) // _SAEBENCH_CHUNKS + 1
    tokens: list[int] = []
    for chunk in range(_SAEBENCH_CHUNKS):
        if len(tokens) >= max_tokens:
            break
        ids = tokenizer(text[chunk * length : (chunk + 1) * length], verbose=False)["input_ids"]
        tokens.extend(token for token in ids if token != tokenizer.pad_token_id)
    return tokens[:max_tokens]


def _on_counted_tokens(
    model: Any,
    contexts: Contexts,
    values: Callable[[Tensor, Tensor], Float[Tensor, "batch pos d_in"]],
    batch_tokens: int,
    what: str,
    title: str,
    allocate: Allocate,
) -> Float[Tensor, "n_tokens d_in"]:
    """Rows of `values` at the tokens that count, in the order of the contexts."""
    if contexts.n_tokens == 0:
        raise UserError(f"The {title} holds no token but special ones. Give a corpus with text in it.")
    lengths = [len(context) for context in contexts.tokens]
    check_fits_context(max(lengths), model, f"A context of the {title}", "Set a smaller context_size.")
    counts = [sum(counted) for counted in contexts.counted]
    starts = list(accumulate(counts, initial=0))
    result = torch.empty(0)
    with tqdm(total=contexts.n_tokens, desc=f"{what} {title}", unit="tok", unit_scale=True) as progress:
        for batch in batches_by_length(lengths, batch_tokens):
            tokens = pad_right([contexts.tokens[i] for i in batch], model)
            counted = mask_right([contexts.counted[i] for i in batch], tokens)
            rows = values(tokens, counted)[counted].cpu()
            if result.numel() == 0:
                result = allocate(contexts.n_tokens, rows.shape[-1], dtype=rows.dtype)
            for i, part in zip(batch, rows.split([counts[i] for i in batch]), strict=True):
                result[starts[i] : starts[i + 1]] = part
            progress.update(len(rows))
    return result
