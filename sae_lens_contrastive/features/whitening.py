"""Features learned in coordinates in which the residual stream is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import normalize

from sae_lens_contrastive.errors import ConfigError

_HUGE = 5.0
_HELD = 0.9999
_INITIAL_WEIGHT = 0.02
_INITIAL_BIAS = -0.5
_BETAS = (0.9, 0.99)
"""A term that a curriculum switches on brings gradients of another size, and with the usual 0.999 steps would be too
long for hundreds of steps; with 0.95 they are so noisy that features find fewer sentences."""
_STATE = ("weight", "bias", "rows", "level")


@dataclass(frozen=True)
class WhiteningOptions:
    """How reserved features learn: the `whitening` section of a variant."""

    lr: float = 2e-3
    """Learning rate of the encoder in white coordinates, on top of the schedule of the run; over the second half of the
    steps it falls linearly to 0."""
    decoder_lr: float = 3e-3
    """Learning rate of the decoder rows, which are kept at norm 1; on top of the schedule of the run."""
    weight_decay: float = 0.1
    """Weight decay of the encoder in white coordinates."""
    shrinkage: float = 0.1
    """Weight, in (0, 1], of the identity in the correlation matrix; 1 only scales each dimension."""
    scale: float = 0.1
    """Pre-activation that one unit in white coordinates makes, so that reserved features reconstruct little."""

    def __post_init__(self) -> None:
        for name in ("lr", "decoder_lr", "scale"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"whitening.{name} is {getattr(self, name)}; it must be above 0.")
        if self.weight_decay < 0:
            raise ConfigError(f"whitening.weight_decay is {self.weight_decay}; it must be 0 or more.")
        if not 0 < self.shrinkage <= 1:
            raise ConfigError(f"whitening.shrinkage is {self.shrinkage}; it must be above 0 and at most 1.")


class Whitening(NamedTuple):
    """White coordinates: u = (x - mean) @ map."""

    map: Float[Tensor, "d_in d_in"]
    """Z, from centred inputs to white coordinates."""
    mean: Float[Tensor, " d_in"]
    """Mean of the inputs."""


def whitening_of(inputs: Float[Tensor, "n d_in"], shrinkage: float) -> Whitening:
    """ZCA whitening of standardised inputs: Z = P diag(1/s) ((1 - a) C + a I)^(-1/2), a the shrinkage.

    s is the standard deviation of each dimension and C the correlation matrix, both without the few huge inputs: their
    distance from the median, in median deviations, is more than 5 times the median distance. P takes the directions
    out that hold 0.9999 of what they deviate by, so that none of their kind is far out in white coordinates. Source:
    Kessy et al. 2018, "Optimal whitening and decorrelation" (ZCA-cor), with a shrinkage of C towards the identity.
    """
    x = inputs.double()
    centred = x - x.median(dim=0).values
    spread = centred.abs().median(dim=0).values
    distance = (centred / spread.where(spread > 0, torch.inf)).norm(dim=1)
    huge = distance > _HUGE * distance.median()
    usual = x[~huge]
    mean = usual.mean(dim=0)
    deviation = usual.std(dim=0, correction=0).clamp(min=1e-6)
    standardised = (usual - mean) / deviation
    correlation = standardised.T @ standardised / len(usual)
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    values, vectors = torch.linalg.eigh((1 - shrinkage) * correlation + shrinkage * identity)
    white = (vectors * values.rsqrt()) @ vectors.T / deviation[:, None]
    if huge.any():
        _, sizes, directions = torch.linalg.svd(x[huge] - mean, full_matrices=False)
        held = sizes.square().cumsum(dim=0) / sizes.square().sum()
        basis = directions[: int((held < _HELD).sum()) + 1]
        white = white - basis.T @ (basis @ white)
    return Whitening(white.to(inputs.dtype), mean.to(inputs.dtype))


class Gradients(NamedTuple):
    """Gradients of the features' parameters."""

    columns: Float[Tensor, "d_in n"]
    """Of W, on inputs that nothing was taken off."""
    biases: Float[Tensor, " n"]
    """Of b."""
    rows: Float[Tensor, "n d_in"]
    """Of the decoder rows."""


class WhiteFeatures:
    """Encoder columns W = scale Z V, biases b = level + scale c - mean W and decoder rows of norm 1.

    V, c and the rows are learned by AdamW, the rows without weight decay. `level` is the pre-activation at which each
    feature fires; whoever trains the SAE keeps it up to date.
    """

    def __init__(
        self,
        whitening: Whitening,
        rows: Float[Tensor, "n d_in"],
        level: Float[Tensor, " n"],
        options: WhiteningOptions,
        generator: Generator,
    ) -> None:
        mean = whitening.mean
        self.whitening, self.options = whitening, options
        start = torch.randn(len(mean), len(rows), generator=generator).to(mean)
        self.level = level.detach().to(mean).clone()
        self.weight = (_INITIAL_WEIGHT * start).requires_grad_()
        self.bias = torch.full((len(rows),), _INITIAL_BIAS).to(mean).requires_grad_()
        self.rows = normalize(rows.detach().to(mean), dim=1).requires_grad_()
        encoder = {"params": [self.weight, self.bias], "weight_decay": options.weight_decay}
        decoder = {"params": [self.rows], "weight_decay": 0.0}
        self.optimizer = torch.optim.AdamW([encoder, decoder], lr=options.lr, betas=_BETAS)

    @torch.no_grad()
    def columns(self) -> tuple[Float[Tensor, "d_in n"], Float[Tensor, " n"]]:
        """W and b, on inputs that are not centred."""
        columns = self.options.scale * self.whitening.map @ self.weight
        return columns, self.level + self.options.scale * self.bias - self.whitening.mean @ columns

    @torch.no_grad()
    def step(self, gradients: Gradients, encoder_factor: float, decoder_factor: float) -> None:
        """One step of AdamW from the gradients of W, b and the rows, at factors times the learning rates.

        By the chain rule dV = scale Z^T (dW - mean db^T) and dc = scale db.
        """
        centred = gradients.columns - torch.outer(self.whitening.mean, gradients.biases)
        self.weight.grad = self.options.scale * self.whitening.map.T @ centred
        self.bias.grad = self.options.scale * gradients.biases
        self.rows.grad = gradients.rows
        encoder, decoder = self.optimizer.param_groups
        encoder["lr"] = self.options.lr * encoder_factor
        decoder["lr"] = self.options.decoder_lr * decoder_factor
        self.optimizer.step()
        self.rows.copy_(normalize(self.rows, dim=1))

    def state_dict(self) -> dict[str, Tensor]:
        """V, c, the rows, the level and AdamW's state; the whitening itself is made anew."""
        state = {name: getattr(self, name).detach() for name in _STATE}
        for i, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{name}": tensor for name, tensor in moments.items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of `state_dict` over."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".")
                moments.setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
