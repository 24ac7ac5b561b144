"""The gated clamp: prompts that speak of the forget domain are edited, all others stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.interventions.base import Intervention, TokenTable, check_multiplier, register_intervention
from sae_lens_contrastive.interventions.clamp import Clamp
from sae_lens_contrastive.interventions.hot_token import HotTokenClamp


@register_intervention("gated")
@dataclass(frozen=True)
class Gated(Intervention):
    """Clamp only in prompts where the selected features are busier than on nearly all retain text.

    rho(prompt) = share of its counted tokens on which any selected feature fires; z_i ← -c where z_i > 0 if
    rho > tau, with tau the `gate_percentile`-th percentile of rho over retain contexts (interpolated), or `least_share`
    if that is more: prompts are shorter than contexts, so that one stray token is a larger share of them. A prompt
    without counted tokens is not edited. Muhamed et al. 2025, "SAEs Can Improve Unlearning: Dynamic Sparse Autoencoder
    Guardrails for Precision Unlearning in LLMs".
    """

    needs_retain_text: ClassVar[bool] = True

    multiplier: float
    """How far below zero, in units of the feature's activation."""
    gate_percentile: float = 95.0
    """Percentile, in [0, 100], of rho on retain text that a prompt must exceed."""
    least_share: float = 0.0
    """Share of tokens, in [0, 1), that a prompt must exceed however silent the features are on retain text."""
    hot_token: bool = False
    """Whether a token with one firing feature has all selected ones clamped, as in the code the authors published."""

    def __post_init__(self) -> None:
        check_multiplier(self.multiplier)
        if not 0 <= self.gate_percentile <= 100:
            raise ConfigError(f"gate_percentile is {self.gate_percentile!r}. Give one in [0, 100], such as 95.")
        if not 0 <= self.least_share < 1:
            raise ConfigError(f"least_share is {self.least_share!r}. Give a share of tokens in [0, 1), such as 0.1.")

    @override
    def __call__(
        self, _acts: Float[Tensor, "n_tokens n_selected"], _tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Raise `ConfigError`: what is high enough a rho for these features is only known from retain text."""
        raise ConfigError("The gate has no threshold yet. Call fitted(acts, tokens) with activations on retain text.")

    @override
    def fitted(self, acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable, /) -> FittedGated:
        """Return the intervention with its gate at the percentile of rho over these retain contexts.

        Raises `UserError` if no context has a counted token.
        """
        n_hot, n_counted = _counts(acts, tokens)
        asked = n_counted > 0
        if not bool(asked.any()):
            raise UserError(
                "The gate needs retain text, but no retain context has a token that counts. Give more text."
            )
        threshold = float(np.percentile(_shares(n_hot, n_counted)[asked].cpu().numpy(), self.gate_percentile))
        return FittedGated(self, max(threshold, self.least_share))


@dataclass(frozen=True)
class FittedGated(Intervention):
    """A gated clamp that knows its threshold, which holds for the features whose activations it was fitted on."""

    needs_retain_text: ClassVar[bool] = True

    gated: Gated
    """The options."""
    threshold: float
    """tau, the rho that a prompt must exceed, in [0, 1]."""

    @override
    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return clamped activations in the prompts that exceed the threshold, the present ones in the others."""
        clamp = HotTokenClamp if self.gated.hot_token else Clamp
        clamped = clamp(self.gated.multiplier)(acts, tokens)
        is_open = _shares(*_counts(acts, tokens)) > self.threshold
        return torch.where(is_open[tokens.prompt][:, None], clamped, acts)

    @override
    def fitted(self, acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable, /) -> FittedGated:
        """Return the intervention with a threshold for these features instead."""
        return self.gated.fitted(acts, tokens)


def _counts(
    acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable
) -> tuple[Int64[Tensor, " n_prompts"], Int64[Tensor, " n_prompts"]]:
    """Of each prompt, the counted tokens on which any feature fires, and all counted ones."""
    n_prompts = len(tokens.prompt.bincount())
    hot = tokens.counts & (acts > 0).any(dim=1)
    return (
        tokens.prompt[hot].bincount(minlength=n_prompts),
        tokens.prompt[tokens.counts].bincount(minlength=n_prompts),
    )


def _shares(
    n_hot: Int64[Tensor, " n_prompts"], n_counted: Int64[Tensor, " n_prompts"]
) -> Float64[Tensor, " n_prompts"]:
    """Rho of each prompt; 0, which exceeds no threshold, where nothing counts."""
    return n_hot.double() / n_counted.clamp(min=1)
