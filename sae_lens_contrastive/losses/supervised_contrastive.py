"""Supervised contrastive term on domain labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import FORGET, RETAIN, LossContext, LossTerm, register_loss_term


@register_loss_term("supervised_contrastive")
@dataclass(frozen=True)
class SupervisedContrastive(LossTerm):
    """Pull tokens of one domain together and apart from the other, in feature space.

    L = mean over anchors i of -1/|P(i)| sum over p in P(i) of log( exp(s_ip / T) / sum over a != i of exp(s_ia / T) ),
    with s = cosine of feature activations and P(i) = the other tokens of the same domain. Anchors are the first
    `max_tokens` forget and retain tokens of the token sample, half each; general tokens have no label and take no part,
    nor do tokens on which nothing fires. In nats. Source: Khosla et al. 2020, equation 2.
    """

    temperature: float = 0.2
    """T, scale of the similarities."""
    max_tokens: int = 128
    """Tokens compared in a step; cost grows with its square."""

    needs_domains = True
    over_ranks = True

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"supervised_contrastive.temperature is {self.temperature}; it must be above 0.")
        if self.max_tokens < 4:
            raise ConfigError(f"supervised_contrastive.max_tokens is {self.max_tokens}; it must be 4 or more.")

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Mean supervised contrastive loss over the anchors; 0 if no anchor has a positive."""
        labels = ctx.sample_labels_of_all()
        half = self.max_tokens // 2
        chosen = torch.cat([_first(labels == domain, half) for domain in (FORGET, RETAIN)])
        acts, labels = ctx.sample_acts(chosen), labels[chosen]
        # acts @ acts.T, but its backward pass is one product with acts instead of two.
        product = acts @ acts.detach().T
        gram = product + product.T - product.detach()
        fires = gram.detach().diagonal() > 0
        gram, labels = gram[fires][:, fires], labels[fires]
        if len(labels) < 2:
            return ctx.feature_acts.new_zeros(())
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        norms = gram.diagonal().sqrt()
        similarity = (gram / (norms[:, None] * norms) / self.temperature).masked_fill(itself, float("-inf"))
        log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
        positive = (labels[:, None] == labels[None, :]) & ~itself
        n_positive = positive.sum(dim=1)
        per_anchor = -log_share.masked_fill(~positive, 0.0).sum(dim=1) / n_positive.clamp(min=1)
        has_positive = n_positive > 0
        return per_anchor[has_positive].mean() if has_positive.any() else ctx.feature_acts.new_zeros(())


def _first(mask: Bool[Tensor, " n"], most: int) -> Int[Tensor, " chosen"]:
    return mask.nonzero().squeeze(1)[:most]
