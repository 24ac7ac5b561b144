"""Mutual information of "feature i fires" and "the token is of the forget domain"."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats.blocks import row_blocks


class MutualInformationTracker:
    """Streaming 2x2 contingency tables, one a feature: fires (z_i > 0) or not, against forget or any other domain.

    I(f_i; y) = H(y) + H(f_i) - H(f_i, y), in nats, over all tokens since the last reset. Counts are 64-bit integers,
    so that neither the order of updates nor merging changes them.
    """

    def __init__(self, d_sae: int) -> None:
        self.d_sae = d_sae
        self._fired = torch.zeros(2, d_sae, dtype=torch.int64)
        self._tokens = torch.zeros(2, dtype=torch.int64)

    @torch.no_grad()
    def update(self, feature_acts: Float[Tensor, "batch d_sae"], is_forget: Bool[Tensor, " batch"]) -> None:
        """Count the tokens of a batch on which each feature fires; general and retain tokens are "not forget"."""
        self._fired = self._fired.to(feature_acts.device)
        for rows in row_blocks(*feature_acts.shape):
            fires = feature_acts[rows] > 0
            # A batch fits 32 bits, and sums of 64-bit integers are four times slower.
            on_forget = fires[is_forget[rows]].sum(dim=0, dtype=torch.int32)
            on_others = fires.sum(dim=0, dtype=torch.int32) - on_forget
            self._fired = self._fired + torch.stack([on_others, on_forget])
        n_forget = is_forget.sum()
        self._tokens = self._tokens.to(feature_acts.device) + torch.stack([len(is_forget) - n_forget, n_forget])

    @torch.no_grad()
    def compute(self) -> Float[Tensor, " d_sae"]:
        """Mutual information of every feature with the label, from 0 to H(y) <= ln 2 nats; 0 before any token."""
        total = self._tokens.sum().clamp(min=1).double()
        of_label = self._tokens.double() / total
        fires = self._fired.double() / total
        joint = torch.cat([fires, of_label[:, None] - fires])
        marginal = torch.stack([fires.sum(dim=0), (of_label[:, None] - fires).sum(dim=0)])
        entropy = torch.special.entr
        information = entropy(of_label).sum() + entropy(marginal).sum(dim=0) - entropy(joint).sum(dim=0)
        return information.clamp(min=0).float()

    def merge(self, other: MutualInformationTracker) -> None:
        """Add the other tracker's counts to these; `ConfigError` if it is of another dictionary."""
        self._check(other.d_sae)
        # To where the other counted: a tracker begins on the CPU, whatever device the features are on.
        self._fired = self._fired.to(other._fired.device) + other._fired
        self._tokens = self._tokens.to(other._tokens.device) + other._tokens

    def reset(self) -> None:
        """Start counting anew."""
        self._fired = torch.zeros_like(self._fired)
        self._tokens = torch.zeros_like(self._tokens)

    def state_dict(self) -> dict[str, Tensor]:
        """The counts."""
        return {"fired": self._fired, "tokens": self._tokens}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take counts over; `ConfigError` if they are of another dictionary."""
        self._check(state["fired"].shape[1])
        self._fired, self._tokens = state["fired"], state["tokens"]

    def _check(self, d_sae: int) -> None:
        if d_sae != self.d_sae:
            raise ConfigError(f"The counts are of d_sae {d_sae}; this SAE has d_sae {self.d_sae}.")
