"""Mutual information of firing features and the forget label, as a loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import FORGET, LossContext, LossTerm, register_loss_term
from sae_lens_contrastive.losses.soft_firing import own_thresholds


@register_loss_term("mutual_information")
@dataclass(frozen=True)
class MutualInformation(LossTerm):
    """Let a few features say whether a token is forget text.

    L = H(y) - mean over i in M of I(f_i; y), y = whether the token is forget text, f_i = whether feature i fires, with
    the firing probability sigmoid(steepness * (hidden_pre_i - theta)) of `soft_firing` in the 2x2 table. M are the
    `n_features` features with the highest I from hard firing, chosen without gradient. Over the token sample. In nats,
    in [0, ln 2]: 0 if each of them tells the label exactly. Source: run 4 of the study.
    """

    n_features: int = 32
    """|M|: features whose information is raised."""
    steepness: float = 4.0
    """Slope of the soft firing probability, in 1 / units of pre-activations."""

    needs_domains = True
    over_ranks = True

    def __post_init__(self) -> None:
        if self.n_features < 1:
            raise ConfigError(f"mutual_information.n_features is {self.n_features}; it must be 1 or more.")
        if self.steepness <= 0:
            raise ConfigError(f"mutual_information.steepness is {self.steepness}; it must be above 0.")

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Entropy of the label that the chosen features leave; 0 if one of the two kinds of token is missing."""
        is_forget = ctx.sample_labels_of_all() == FORGET
        if is_forget.all() or not is_forget.any():
            return ctx.feature_acts.new_zeros(())
        hard = _information(ctx, ctx.sample.feature_acts.detach().sign(), is_forget)
        chosen = hard.topk(min(self.n_features, len(hard))).indices
        thresholds = own_thresholds(ctx.sae)
        theta = ctx.firing_level if thresholds is None else thresholds[chosen]
        excess = ctx.pre_activations(chosen, sampled=True).float() - theta
        soft = _information(ctx, torch.sigmoid(self.steepness * excess), is_forget)
        return _binary_entropy(is_forget.to(soft.dtype).mean()) - soft.mean()


def _information(
    ctx: LossContext, fires: Float[Tensor, "n m"], is_forget: Bool[Tensor, " n_sample"]
) -> Float[Tensor, " m"]:
    """I(f; y) = H(f) - P(y) H(f | y) - P(not y) H(f | not y) from the 2x2 table of mean firing probabilities.

    `fires` is of this rank's tokens of the sample, `is_forget` of all.
    """
    sides = torch.stack([is_forget, ~is_forget]).to(fires.dtype)
    share = sides.mean(dim=1)
    own_forget = ctx.sample.labels() == FORGET
    own = torch.stack([own_forget, ~own_forget]).to(fires.dtype)
    rates = ctx.total((own / sides.sum(dim=1, keepdim=True)) @ fires)
    return _binary_entropy(share @ rates) - share @ _binary_entropy(rates)


def _binary_entropy(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    # At 0 and 1 the gradient of p log p is infinite.
    p = p.clamp(1e-6, 1 - 1e-6)
    return torch.special.entr(p) + torch.special.entr(1 - p)
