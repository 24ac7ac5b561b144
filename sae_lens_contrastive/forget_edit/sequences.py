"""What an edit remembers of sequences that a model reads bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.forget_edit.taps import Arriving
from sae_lens_contrastive.interventions import Intervention, TokenTable


@dataclass
class Sequences:
    """A batch, from the first forward pass that it is in to the last."""

    n_seen: int
    """Tokens of each sequence that have been read, pads among them."""
    begun: Bool[Tensor, " batch"]
    """Sequences whose first token has been read."""
    acts: Float[Tensor, "n_asked n_selected"]
    """Activations of the tokens that have a say in a gate."""
    prompt: Int[Tensor, " n_asked"]
    """The sequence of each of them."""
    n_asked: Int[Tensor, " batch"] | None = None
    """Tokens of each sequence, pads among them, after which the model is asked no more; None if that is not known."""

    @staticmethod
    def new(batch: int, n_selected: int, n_asked: Int[Tensor, " batch"] | None = None) -> Sequences:
        """Sequences of which nothing has been read yet."""
        no_sequence = torch.zeros(0, dtype=torch.long)
        return Sequences(0, torch.zeros(batch, dtype=torch.bool), torch.zeros(0, n_selected), no_sequence, n_asked)

    def take(
        self, arriving: Arriving, special: Int[Tensor, " n_special"], *, edit_special: bool
    ) -> tuple[Bool[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """The arriving tokens that may be edited, and those of them that have a say in a gate.

        One token after others is what the model says itself; it has none, and neither have special tokens.
        """
        tokens = arriving.tokens.cpu()
        attended = torch.ones_like(tokens, dtype=torch.bool) if arriving.attended is None else arriving.attended.cpu()
        first = attended & (attended.cumsum(1) == 1) & ~self.begun[:, None]
        plain = attended & ~first & ~torch.isin(tokens, special)
        editable = attended & ~first if edit_special else plain
        self.begun |= attended.any(dim=1)
        asked = plain & (self.n_seen == 0 or tokens.shape[1] > 1)
        if self.n_asked is not None:
            asked &= self.n_seen + torch.arange(tokens.shape[1]) < self.n_asked[:, None]
        self.n_seen += tokens.shape[1]
        return editable, asked

    def edited(
        self,
        acts: Float[Tensor, "n_tokens n_selected"],
        prompt: Int[Tensor, " n_tokens"],
        asked: Bool[Tensor, " n_tokens"],
        intervention: Intervention,
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """New activations of tokens that arrive, with the say of those that were asked before."""
        n_before = len(self.acts)
        counts = torch.cat([torch.ones(n_before, dtype=torch.bool), asked]).to(acts.device)
        prompts = torch.cat([self.prompt, prompt])
        every = torch.cat([self.acts.to(acts.device), acts])
        new = intervention(every, TokenTable(prompts.to(acts.device), counts))[n_before:]
        self.acts, self.prompt = every[counts], prompts[counts.cpu()]
        return new
