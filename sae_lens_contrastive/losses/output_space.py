"""The model above the hook, with sequences of forget and retain text to run it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.models import ModelAboveHook


@dataclass(frozen=True)
class Sequences:
    """Text as the model sees it, up to the hook."""

    tokens: Int[Tensor, "n pos"]
    """Token ids, padded on the right."""
    residual: Float[Tensor, "n pos d_model"]
    """Residual stream at the hook, as the model makes it."""
    editable: Bool[Tensor, "n pos"]
    """Tokens that an edit may change and that count: no special tokens, no pads, not position 0."""

    def __len__(self) -> int:
        return len(self.tokens)

    def turn(self, step: int, n: int) -> Sequences:
        """`n` sequences, others at every step, chosen by the step alone so that a resumed run sees the same.

        As long as the longest of them.
        """
        start, n = step * n % len(self), min(n, len(self))
        # A turn that does not begin again at the first sequence is a view: copies would cost more than their use.
        rows = slice(start, start + n) if start + n <= len(self) else [(start + i) % len(self) for i in range(n)]
        editable = self.editable[rows]
        used = editable.any(dim=0).nonzero()
        n_used = int(used[-1]) + 1 if len(used) else 1
        return Sequences(self.tokens[rows, :n_used], self.residual[rows, :n_used], editable[:, :n_used])

    def to(self, device: torch.device | str) -> Sequences:
        """The same on a device."""
        return Sequences(self.tokens.to(device), self.residual.to(device), self.editable.to(device))

    def rows(self, chosen: Bool[Tensor, " n"]) -> Sequences:
        """Some of the sequences."""
        return Sequences(self.tokens[chosen], self.residual[chosen], self.editable[chosen])


class Sides(NamedTuple):
    """Text of both sides."""

    forget: Sequences
    """Text of what is to be forgotten."""
    retain: Sequences
    """Text of what must stay."""


@dataclass(frozen=True)
class OutputSpace:
    """What output-space terms run: the model above the hook on a fixed stock of sequences."""

    above: ModelAboveHook
    """Differentiable function from the residual stream to next-token logits."""
    forget: Sequences
    """Sequences of forget text."""
    retain: Sequences
    """Sequences of retain text."""
    activation_scale: float = 1.0
    """The SAE works on activation_scale * residual."""
    sentences: Sides | None = None
    """Single sentences of both sides, if the run asks for them."""

    def turns(self, step: int, n_sequences: int, n_sentences: int, retain_per_forget: int = 1) -> tuple[Sides, ...]:
        """Sequences and sentences of both sides, whichever are asked for, others at every step.

        So many of forget text, and `retain_per_forget` times as many of retain text. Raises `ConfigError` for
        sentences where there are none.
        """
        parts = []
        if n_sequences:
            retain = self.retain.turn(step, n_sequences * retain_per_forget)
            parts.append(Sides(self.forget.turn(step, n_sequences), retain))
        if n_sentences:
            if self.sentences is None:
                raise ConfigError(
                    f"{n_sentences} sentences are asked for, but the run has none. Set corpora.output_space_sentences."
                )
            forget, retain = self.sentences
            retain = retain.turn(step, n_sentences * retain_per_forget)
            parts.append(Sides(forget.turn(step, n_sentences), retain))
        return tuple(parts)
