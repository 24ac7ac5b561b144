"""What each feature does on a corpus: how often it fires, how strongly, and what that does to the model's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import decoder_rows, tokens_at_once


@dataclass(frozen=True, eq=False)
class CorpusStatistics:
    """Statistics of every feature of one SAE over the tokens of one corpus, on the CPU."""

    n_tokens: int
    """Tokens that were looked at."""
    n_fired: Int64[Tensor, " d_sae"]
    """Tokens on which each feature fires, z_i > 0."""
    mean: Float64[Tensor, " d_sae"]
    """Mean activation: 1/n · Σ_t z_ti."""
    mean_square: Float64[Tensor, " d_sae"]
    """Mean squared activation: 1/n · Σ_t z_ti²."""
    attribution: Float64[Tensor, " d_sae"] | None = None
    """Mean over tokens of z_ti · ⟨∂L/∂resid_t, d_i⟩, in nats, L the summed loss of a context and d_i the effective
    decoder row: to first order what the feature adds to the loss by being there. None without gradients."""

    @property
    def rate(self) -> Float64[Tensor, " d_sae"]:
        """Firing rate p_i: share of tokens on which each feature fires."""
        return self.n_fired.double() / self.n_tokens


@dataclass(frozen=True)
class Evidence:
    """What a selector ranks features by: the same statistics on both corpora."""

    forget: CorpusStatistics
    """On text of what is to be forgotten."""
    retain: CorpusStatistics
    """On text of what must stay."""
    reserved: Bool[Tensor, " d_sae"]
    """Features that a loss term set aside for the forget domain in training."""


@torch.no_grad()
def corpus_statistics(
    sae: Any,
    residuals: Float[Tensor, "n_tokens d_in"],
    gradients: Float[Tensor, "n_tokens d_in"] | None = None,
    batch: int = 4096,
) -> CorpusStatistics:
    """Encode a corpus, at most `batch` tokens at once and fewer where the dictionary is wide, and sum in 64 bits.

    `gradients` are those of the loss at the hook, token by token in the order of `residuals`. Raises `UserError` for a
    corpus without tokens.
    """
    n_tokens, d_sae, device = len(residuals), int(sae.cfg.d_sae), sae.W_dec.device
    if n_tokens == 0:
        raise UserError("The corpus has no tokens to take statistics of. Give more text.")
    n_fired = torch.zeros(d_sae, dtype=torch.int64, device=device)
    sums = torch.zeros(3, d_sae, dtype=torch.float64, device=device)
    rows = None if gradients is None else decoder_rows(sae, range(d_sae))
    step = tokens_at_once(sae, batch)
    for start in range(0, n_tokens, step):
        acts = sae.encode(residuals[start : start + step].to(device, sae.W_dec.dtype))
        # Few features fire on a token: to add up those alone is several times faster than whole columns.
        token, feature = (acts > 0).nonzero(as_tuple=True)
        fired = acts[token, feature].double()
        n_fired += feature.bincount(minlength=d_sae)
        sums[0].index_add_(0, feature, fired)
        sums[1].index_add_(0, feature, fired.square())
        if gradients is not None and rows is not None:
            slopes = gradients[start : start + step].to(device, torch.float32) @ rows.T
            sums[2].index_add_(0, feature, fired * slopes[token, feature])
    mean, mean_square, attribution = (sums / n_tokens).cpu()
    return CorpusStatistics(
        n_tokens=n_tokens,
        n_fired=n_fired.cpu(),
        mean=mean,
        mean_square=mean_square,
        attribution=None if gradients is None else attribution,
    )
