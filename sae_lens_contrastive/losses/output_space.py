"""The model above the hook, with sequences of forget and retain text to run it on."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

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
        """`n` sequences, others at every step, chosen by the step alone so that a resumed run sees the same."""
        rows = [(step * n + i) % len(self) for i in range(min(n, len(self)))]
        return Sequences(self.tokens[rows], self.residual[rows], self.editable[rows])


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
