"""KL unlearning in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import FORGET, RETAIN, LossContext, LossTerm, register_loss_term


@register_loss_term("feature_kl")
@dataclass(frozen=True)
class FeatureKL(LossTerm):
    """Let forget and retain text be told by different features.

    L = max(0, bound - KL(P_forget || P_retain)), P_D = (m_D + eps) / sum over features of (m_D + eps), with m_D the
    mean activation of each feature on the tokens of domain D in the token sample. In nats, in [0, bound]; once the
    divergence reaches the bound the gradient is zero. Source: run 3 of the study.
    """

    bound: float = 5.0
    """Divergence that is enough, in nats."""
    eps: float = 1e-3
    """Activation that every feature is given on top; it bounds the ratio of two small means."""

    needs_domains = True
    over_ranks = True

    def __post_init__(self) -> None:
        for name in ("bound", "eps"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"feature_kl.{name} is {getattr(self, name)}; it must be above 0.")

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """What is missing to the bound; 0 if one of the domains has no token."""
        own, labels = ctx.sample.labels(), ctx.sample_labels_of_all()
        counts = torch.stack([labels == FORGET, labels == RETAIN]).sum(dim=1, keepdim=True)
        if not counts.all():
            return ctx.feature_acts.new_zeros(())
        acts = ctx.sample.feature_acts
        is_domain = torch.stack([own == FORGET, own == RETAIN])
        shares = ctx.total((is_domain.to(acts.dtype) / counts) @ acts) + self.eps
        log_forget, log_retain = (shares / shares.sum(dim=1, keepdim=True)).log()
        return torch.relu(self.bound - (log_forget.exp() * (log_forget - log_retain)).sum())
