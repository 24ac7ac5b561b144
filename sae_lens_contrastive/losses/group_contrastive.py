"""Contrastive term on correlation groups: diversity within groups, separation between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import LossContext, LossTerm, register_loss_term


@register_loss_term("group_contrastive")
@dataclass(frozen=True)
class GroupContrastive(LossTerm):
    """Push the features of one correlation group apart, and the groups from each other.

        L = diversity_weight * D + separation_weight * S
        D = mean over groups g of mean over i != j in g of corr(z_i, z_j)^2
        S = mean over pairs of groups a != b of max(0, cos(c_a, c_b))^2, c_g = mean over i in g of d_i / ||d_i||

    corr is the Pearson correlation over the token sample of the batch, d_i row i of W_dec. Features that do not vary
    in the sample have no correlation and are left out of D; a group with fewer than two others counts 0, and so does
    S with fewer than two groups. Dimensionless, in [0, diversity_weight + separation_weight].

    What a step computes is an estimate of bounded cost: `max_groups` groups, and for D `max_features` features of a
    larger group, drawn uniformly by the step number alone. Every group, pair of groups and pair of features is equally
    likely, so the mean over steps is the definition, up to the features left out. Source: runs 1 and 2 of the study.
    """

    diversity_weight: float = 1.0
    """Weight of D."""
    separation_weight: float = 0.0
    """Weight of S; run 1 of the study has 0, run 2 has 1."""
    max_groups: int = 16
    """Groups looked at in a step."""
    max_features: int = 64
    """Features of one group whose correlations are taken in a step."""

    needs_groups = True
    over_ranks = True

    def __post_init__(self) -> None:
        for name in ("diversity_weight", "separation_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"group_contrastive.{name} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("max_groups", "max_features"):
            if getattr(self, name) < 2:
                raise ConfigError(f"group_contrastive.{name} is {getattr(self, name)}; it must be 2 or more.")

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Weighted sum of diversity and separation; 0 without groups."""
        loss = ctx.feature_acts.new_zeros(())
        generator = torch.Generator().manual_seed(ctx.step)
        groups = [ctx.groups[i] for i in _draw(len(ctx.groups), self.max_groups, generator).tolist()]
        if groups and self.diversity_weight > 0:
            members = [group[_draw(len(group), self.max_features, generator).to(group.device)] for group in groups]
            acts = ctx.whole_sample(ctx.sample.feature_acts.index_select(1, torch.cat(members)))
            loss = loss + self.diversity_weight * _diversity(acts, [len(group) for group in members])
        if len(groups) > 1 and self.separation_weight > 0:
            loss = loss + self.separation_weight * _separation(ctx.W_dec, groups)
        return loss


def _draw(n: int, most: int, generator: torch.Generator) -> Int[Tensor, " drawn"]:
    return torch.arange(n) if n <= most else torch.randperm(n, generator=generator)[:most]


def _diversity(acts: Float[Tensor, "n members"], sizes: list[int]) -> Float[Tensor, ""]:
    """D of groups whose members lie side by side, so many of each."""
    centred = acts - acts.mean(dim=0)
    norms = centred.norm(dim=0)
    # Both branches of a `where` are differentiated: keep the norm away from 0 before dividing.
    varies = norms > 1e-6 * acts.detach().abs().amax().clamp(min=1e-6)
    unit = centred * torch.where(varies, 1 / torch.where(varies, norms, 1.0), 0.0)
    squares = torch.stack([_gram(unit_g).square().sum() for unit_g in unit.split(sizes, dim=1)])
    n_varying = torch.stack([varies_g.sum() for varies_g in varies.split(sizes)])
    # The diagonal of correlations holds 1 for each feature that varies and 0 for the others.
    return ((squares - n_varying).clamp(min=0) / (n_varying * (n_varying - 1)).clamp(min=1)).mean()


def _gram(unit: Float[Tensor, "n size"]) -> Float[Tensor, "side side"]:
    """The smaller of the two gram matrices, which have the same sum of squares."""
    return unit.T @ unit if unit.shape[1] <= unit.shape[0] else unit @ unit.T


def _separation(W_dec: Float[Tensor, "d_sae d_in"], groups: list[Int[Tensor, " size"]]) -> Float[Tensor, ""]:
    share = W_dec.new_zeros(len(groups), len(W_dec))
    for row, group in zip(share, groups, strict=True):
        row[group] = 1 / len(group)
    centroids = normalize((share / W_dec.norm(dim=1).clamp(min=1e-12)) @ W_dec, dim=1)
    overlap = (centroids @ centroids.T).relu().square()
    return (overlap.sum() - overlap.diagonal().sum()) / (len(groups) * (len(groups) - 1))
