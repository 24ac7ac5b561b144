"""Reserved features spread over the forget domain: one that never fires begins where none of the others does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sae_lens.saes.sae import TrainingSAE
from torch import Generator, Tensor
from torch.optim import Optimizer

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.surgery import feature_parameters, mean_norm_of_others, reset_moments


@dataclass(frozen=True)
class CoverageOptions:
    """How reserved features that do not fire start anew: the `coverage` section of a variant."""

    every_n_steps: int = 20
    """Training steps between two looks; a reserved feature that has been silent since starts anew."""
    until: float = 0.5
    """Share of the training, in (0, 1], after which none starts anew."""
    margin: float = 2.0
    """Pre-activation of a new feature on the token that it begins with, and as far below zero on the mean of tokens of
    other domains."""

    def __post_init__(self) -> None:
        if self.every_n_steps < 1:
            raise ConfigError(f"coverage.every_n_steps is {self.every_n_steps}; it must be 1 or more.")
        if not 0 < self.until <= 1:
            raise ConfigError(f"coverage.until is {self.until}; it must be above 0 and at most 1.")
        if self.margin <= 0:
            raise ConfigError(f"coverage.margin is {self.margin}; it must be above 0.")


@torch.no_grad()
def cover(
    sae: TrainingSAE[Any],
    optimizer: Optimizer,
    features: Int[Tensor, " n"],
    sae_in: Float[Tensor, "batch d_in"],
    is_forget: Bool[Tensor, " batch"],
    uncovered: Bool[Tensor, " batch"],
    generator: Generator,
    margin: float,
) -> Int[Tensor, " m"]:
    """Begin each feature with an `uncovered` token of its own, drawn evenly; returns the tokens, at most one a feature.

    None is begun where all tokens are of the forget domain.

    With t the token and mu the mean over tokens that are not forget ones, d = (t - mu) / ||t - mu||: the decoder row
    is d times the mean norm of the other rows, and hidden_pre(x) = margin (2 <d, x - mu> / ||t - mu|| - 1), which is
    `margin` at t and -`margin` at mu. The optimiser's moments become 0.
    """
    candidates = uncovered.nonzero().squeeze(1)
    order = torch.randperm(len(candidates), generator=generator).to(candidates.device)
    tokens = candidates[order[: len(features)]]
    features = features[: len(tokens)]
    if len(tokens) == 0 or bool(is_forget.all()):
        return tokens[:0]
    inputs = sae.process_sae_in(sae_in).float()
    mean = inputs[~is_forget].mean(dim=0)
    difference = inputs[tokens] - mean
    distance = difference.norm(dim=1)
    directions = difference / distance[:, None]
    row_norm = mean_norm_of_others(sae.W_dec, features)
    # Where pre-activations are multiplied by the norms of decoder rows, the encoder makes up for it.
    slope = 2 * margin / distance / (row_norm if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) else 1.0)
    new = {
        "W_dec": row_norm * directions,
        "W_enc": slope * directions.T,
        "b_enc": -slope * (distance / 2 + directions @ mean),
        "threshold": torch.full_like(distance, getattr(sae.cfg, "jumprelu_init_threshold", 0.0)),
    }
    for name, (parameter, axis) in feature_parameters(sae).items():
        parameter.index_copy_(axis, features, new[name].to(parameter.dtype))
        reset_moments(optimizer, parameter, axis, features)
    return tokens
