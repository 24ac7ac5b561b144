"""Changes to single features of an SAE under training: masking unimportant ones, giving them another direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from sae_lens.saes.sae import TrainingSAE
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import FORGET

FEATURE_AXES = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "threshold": 0}
"""Axis of the feature in each parameter that has one; sizes cannot tell, d_sae may equal d_in."""

_MASKED = ("W_enc", "b_enc")
_MOMENTS = ("exp_avg", "exp_avg_sq")
RESCALES_EACH_TOKEN = ("constant_norm_rescale", "layer_norm")
"""Values of normalize_activations under which the error of a token is not in the encoder's units."""


@dataclass(frozen=True)
class PruningOptions:
    """Which features are masked and when: the `pruning` section of a variant."""

    share: float = 0.1
    """At most this share of all features is masked at any time, in (0, 1)."""
    threshold: float = 0.01
    """Only features whose importance is below this are masked, in (0, 1]."""
    every_n_steps: int = 50
    """Training steps between two prunings."""
    start_step: int = 100
    """No pruning before this many steps: what a young feature does says little about what it will do."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"pruning.share is {self.share}; it must be above 0 and below 1.")
        if not 0 < self.threshold <= 1:
            raise ConfigError(f"pruning.threshold is {self.threshold}; it must be above 0 and at most 1.")
        if self.every_n_steps < 1:
            raise ConfigError(f"pruning.every_n_steps is {self.every_n_steps}; it must be 1 or more.")
        if self.start_step < 0:
            raise ConfigError(f"pruning.start_step is {self.start_step}; it must be 0 or more.")


@dataclass(frozen=True)
class ReinitialisationOptions:
    """How pruned and dead features start anew: the `reinitialisation` section of a variant."""

    every_n_steps: int = 250
    """Training steps between two reinitialisations."""
    forget_weight: float = 5.0
    """How much more a forget token counts than another when a direction is drawn, above 0."""
    until: float = 0.8
    """Share of the training, in (0, 1], after which none starts anew: a new direction takes steps to find its place."""
    max_share: float = 0.25
    """At most this share of all features starts anew at one time, in (0, 1]; those silent longest go first."""
    explained_share: float = 0.3
    """At most this share of its token's error is made up for by a new feature at once, in (0, 1]; less where the new
    directions are so alike that together they would overshoot."""

    def __post_init__(self) -> None:
        if self.every_n_steps < 1:
            raise ConfigError(f"reinitialisation.every_n_steps is {self.every_n_steps}; it must be 1 or more.")
        if self.forget_weight <= 0:
            raise ConfigError(f"reinitialisation.forget_weight is {self.forget_weight}; it must be above 0.")
        for name in ("until", "max_share", "explained_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"reinitialisation.{name} is {getattr(self, name)}; it must be above 0 and at most 1."
                )


def feature_parameters(sae: TrainingSAE[Any]) -> dict[str, tuple[Parameter, int]]:
    """Parameters that hold something for every feature, each with the axis of the feature."""
    named = dict(sae.named_parameters())
    return {name: (named[name], axis) for name, axis in FEATURE_AXES.items() if name in named}


def features_to_prune(
    importance: Float[Tensor, " d_sae"], pruned: Bool[Tensor, " d_sae"], options: PruningOptions
) -> Int[Tensor, " n"]:
    """Features to mask next: importance below the threshold, lowest first, as many as the share leaves room for."""
    room = int(options.share * len(importance)) - int(pruned.sum())
    order = importance.argsort(stable=True)
    candidate = ~pruned & (importance < options.threshold)
    return order[candidate[order]][: max(room, 0)]


@torch.no_grad()
def prune(sae: TrainingSAE[Any], optimizer: Optimizer, features: Int[Tensor, " n"]) -> None:
    """Silence features: encoder column and bias become 0, so that hidden_pre = z = 0 in every architecture.

    The decoder row stays: with a norm of 0 it would divide by 0 where activations are rescaled by it. The optimiser's
    moments of the features become 0; the mask holds while `zero_gradient` runs on every gradient.
    """
    for name, (parameter, axis) in feature_parameters(sae).items():
        if name in _MASKED:
            parameter.index_fill_(axis, features, 0)
        reset_moments(optimizer, parameter, axis, features)


def keep_at_zero(sae: TrainingSAE[Any], pruned: Callable[[], Bool[Tensor, " d_sae"]]) -> None:
    """From now on, take the features that are pruned at the time out of every gradient."""
    # After accumulation and before the host clips: a masked gradient has no part in the norm.
    for parameter, axis in feature_parameters(sae).values():
        parameter.register_post_accumulate_grad_hook(
            lambda parameter, axis=axis: zero_gradient(parameter, axis, pruned())
        )


@torch.no_grad()
def zero_gradient(parameter: Tensor, axis: int, pruned: Bool[Tensor, " d_sae"]) -> None:
    """Take the pruned features out of the gradient of one parameter; `axis` is the axis of the feature."""
    if parameter.grad is not None:
        parameter.grad.index_fill_(axis, pruned.nonzero().squeeze(1), 0)


@torch.no_grad()
def reinitialise(
    sae: TrainingSAE[Any],
    optimizer: Optimizer,
    features: Int[Tensor, " n"],
    sae_in: Float[Tensor, "batch d_in"],
    sae_out: Float[Tensor, "batch d_in"],
    domains: Int[Tensor, " batch"] | None,
    generator: Generator,
    options: ReinitialisationOptions,
) -> Int[Tensor, " n"]:
    """Give features the directions of badly reconstructed tokens; returns the token of each feature.

    Resampling (Bricken et al. 2023, "Towards Monosemanticity") takes the input of a drawn token as direction; here it
    is the unit error d = e/||e||, which is what the dictionary lacks. e = sae_in - sae_out less its median over the
    batch: what all tokens lack is for the decoder bias to learn, and as a part of many features would be added many
    times. A token is drawn with probability proportional to weight * ||e||^2, without replacement; where fewer tokens
    than features have an error, the last features stay as they are.

    W_dec row = n d, with n the mean norm of the other rows. The encoder makes the feature fire on its token t with the
    activation that decodes to share * e, and on others x where they project on d nearly as much:
    hidden_pre(x) = share (||e|| + <d, x - t>) / n, share = min(explained_share, 1 / largest eigenvalue of sum d d^T),
    so that an input far out, on which all new features fire, is not overshot. A JumpReLU threshold returns to its
    initial value and the optimiser's moments become 0.

    The SAE must not rescale each token: the error would not be in the encoder's units.
    """
    error = sae_in.float() - sae_out.detach().float()
    error = error - error.median(dim=0).values
    tokens = draw_tokens(error, domains, len(features), generator, options.forget_weight)
    features = features[: len(tokens)]
    if len(tokens) == 0:
        return tokens
    norms = error[tokens].norm(dim=1)
    directions = error[tokens] / norms[:, None]
    largest = torch.linalg.eigvalsh(directions.T @ directions)[-1]
    share = (1 / largest).clamp(max=options.explained_share)
    row_norm = mean_norm_of_others(sae.W_dec, features)
    own_projection = (directions * sae.process_sae_in(sae_in[tokens]).float()).sum(dim=1)
    new = {
        "W_dec": row_norm * directions,
        "W_enc": share / row_norm * directions.T,
        "b_enc": share / row_norm * (norms - own_projection),
        "threshold": torch.full_like(norms, getattr(sae.cfg, "jumprelu_init_threshold", 0.0)),
    }
    for name, (parameter, axis) in feature_parameters(sae).items():
        parameter.index_copy_(axis, features, new[name].to(parameter.dtype))
        reset_moments(optimizer, parameter, axis, features)
    return tokens


@torch.no_grad()
def draw_tokens(
    error: Float[Tensor, "batch d_in"],
    domains: Int[Tensor, " batch"] | None,
    n: int,
    generator: Generator,
    forget_weight: float,
) -> Int[Tensor, " n"]:
    """Draw n tokens in proportion to weight * squared error, weight = `forget_weight` on forget tokens and 1 elsewhere.

    No token is drawn twice, as two features of one token would stay the same for ever: fewer are drawn if fewer than n
    tokens have an error.
    """
    weight = error.double().square().sum(dim=1)
    if domains is not None:
        weight = torch.where(domains == FORGET, forget_weight * weight, weight)
    weight = weight.to(generator.device)
    n = min(n, int((weight > 0).sum()))
    if n == 0:
        return torch.zeros(0, dtype=torch.int64, device=error.device)
    return torch.multinomial(weight, n, replacement=False, generator=generator).to(error.device)


def mean_norm_of_others(W_dec: Float[Tensor, "d_sae d_in"], features: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean norm of the decoder rows of all other features; of all, if there are no others."""
    norms = W_dec.float().norm(dim=1)
    other = torch.ones_like(norms, dtype=torch.bool).index_fill_(0, features, False)
    return norms[other].mean() if other.any() else norms.mean()


def reset_moments(optimizer: Optimizer, parameter: Parameter, axis: int, features: Int[Tensor, " n"]) -> None:
    """Let the optimiser's moments of some features become 0."""
    state = optimizer.state.get(parameter, {})
    for name in _MOMENTS:
        if name in state:
            state[name].index_fill_(axis, features, 0)
