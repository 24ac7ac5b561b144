"""Sentences of a corpus, each on its own, with their residual stream: what a question looks like to the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.data.batching import batches_by_length, bos_tokens, encode_text, pad_right
from sae_lens_contrastive.data.sequences import editable_positions
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.kept_tensors import kept_tensors
from sae_lens_contrastive.losses.output_space import Sequences
from sae_lens_contrastive.models import residual_at_hook

MAX_TOKENS = 32
"""Tokens of a sentence that are kept, after the first of the sequence."""
_MIN_CHARACTERS = 15
_BATCH_TOKENS = 2048
_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """Pieces of texts between the ends of sentences and lines, without those of less than 15 characters."""
    for text in texts:
        for piece in _END.split(text):
            if len(piece.strip()) >= _MIN_CHARACTERS:
                yield piece.strip()


def collect_sentences(
    sources: Sequence[Iterable[str]], model: Any, hook_name: str, n_sentences: int, seed: int, label: str = "given"
) -> Sequences:
    """At most `n_sentences` sentences of all sources with the model's residual stream at the hook.

    Every sentence is a sequence of its own, cut after 32 tokens. Sources take turns, each in an order of its own drawn
    by the seed, so that any stretch holds as many of every source; one that has fewer than its share begins again.
    Raises `UserError` if a source, of the corpus called by its `label`, has no sentence.
    """
    share = max(1, n_sentences // len(sources))
    chosen = []
    for number, texts in enumerate(sources):
        found = list(islice(sentences(texts), share))
        if not found:
            raise UserError(f"A source of the {label} corpus has no sentence of {_MIN_CHARACTERS} characters or more.")
        Random(f"{seed}/{number}").shuffle(found)
        chosen.append(found)
    longest = max(map(len, chosen))
    turns = [texts[i % len(texts)] for i in range(longest) for texts in chosen]
    start = bos_tokens(model.tokenizer)
    rows = [[*start, *encode_text(model.tokenizer, text)][: len(start) + MAX_TOKENS] for text in turns]
    return _with_residual(rows, model, hook_name, label)


def _with_residual(rows: list[list[int]], model: Any, hook_name: str, label: str) -> Sequences:
    tokens = pad_right(rows, model)
    lengths = [len(row) for row in rows]
    residual: Tensor | None = None
    for batch in tqdm(batches_by_length(lengths, _BATCH_TOKENS), desc=f"sentences of {label} corpus", unit="batch"):
        n = lengths[batch[0]]
        part = residual_at_hook(model, hook_name, tokens[batch, :n])
        if residual is None:
            residual = part.new_zeros(*tokens.shape, part.shape[-1])
        residual[batch, :n] = part
    assert residual is not None
    editable = editable_positions(tokens, model.tokenizer) & _within(torch.tensor(lengths), tokens)
    return Sequences(tokens, residual, editable)


def kept_sentences(path: Path, fingerprint: str, collect: Callable[[], Sequences]) -> Sequences:
    """Sentences from a file with this fingerprint; without one they are collected, and kept there.

    The residual stream is kept up to the last token that counts: nothing reads beyond it, and here it is 0.
    """
    kept = kept_tensors(path, fingerprint, lambda: _compact(collect()))
    residual = kept["residual"].new_zeros(*kept["tokens"].shape, kept["residual"].shape[-1])
    residual[_within(kept["lengths"], kept["tokens"])] = kept["residual"]
    return Sequences(kept["tokens"].clone(), residual, kept["editable"].clone())


def _compact(found: Sequences) -> dict[str, Tensor]:
    position = torch.arange(1, found.tokens.shape[1] + 1, device=found.tokens.device)
    lengths = (found.editable * position).amax(dim=1)
    residual = found.residual[_within(lengths, found.tokens)]
    return {"tokens": found.tokens, "residual": residual, "editable": found.editable, "lengths": lengths}


def _within(lengths: Tensor, tokens: Tensor) -> Bool[Tensor, "n pos"]:
    """Positions before the end of each row."""
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device)[:, None]
