"""A loss term of one's own: keep the features of forget and retain text apart, and train with it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive import LossContext, LossTerm, register_loss_term
from sae_lens_contrastive.losses import FORGET, RETAIN


@register_loss_term("shared_activation")
@dataclass(frozen=True)
class SharedActivation(LossTerm):
    """L = cosine of the mean feature activations on forget and on retain tokens. Dimensionless, in [0, 1]."""

    needs_domains = True

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Cosine between the two domain means."""
        domains = ctx.labels()
        forget, retain = (ctx.feature_acts[domains == domain].mean(dim=0) for domain in (FORGET, RETAIN))
        return torch.cosine_similarity(forget, retain, dim=0)
