"""Contrastive term on correlation groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.losses.base import LossContext, LossTerm, register_loss_term


@register_loss_term("group_contrastive")
@dataclass(frozen=True)
class GroupContrastive(LossTerm):
    """Push the features of one correlation group apart.

    L = mean over groups g of mean over i != j in g of corr(z_i, z_j)^2, with the Pearson correlation over the tokens
    of this batch. Features that do not vary in the batch have no correlation and are left out of their group; a group
    with fewer than two others counts 0. Dimensionless, in [0, 1]. Source: run 1 of the study.
    """

    needs_groups = True

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Mean over groups of the mean squared off-diagonal correlation; 0 without groups."""
        if not ctx.groups:
            return ctx.feature_acts.new_zeros(())
        columns = torch.cat(ctx.groups)
        acts = ctx.feature_acts[:, columns]
        centred = acts - acts.mean(dim=0)
        norms = centred.norm(dim=0)
        # Both branches of a `where` are differentiated: keep the norm away from 0 before dividing.
        varies = norms > 1e-6 * acts.detach().abs().amax().clamp(min=1e-6)
        unit = torch.where(varies, centred / torch.where(varies, norms, torch.ones_like(norms)), 0.0)
        sizes = [len(group) for group in ctx.groups]
        per_group = [
            _mean_squared_off_diagonal(unit_g, varies_g.sum())
            for unit_g, varies_g in zip(unit.split(sizes, dim=1), varies.split(sizes), strict=True)
        ]
        return torch.stack(per_group).mean()


def _mean_squared_off_diagonal(unit: Float[Tensor, "batch size"], n_varying: Tensor) -> Float[Tensor, ""]:
    correlation = unit.T @ unit
    n_pairs = n_varying * (n_varying - 1)
    # The diagonal holds 1 for each feature that varies and 0 for the others.
    return (correlation.square().sum() - n_varying).clamp(min=0) / n_pairs.clamp(min=1)
