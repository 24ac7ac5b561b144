"""Edits of selected features at a residual-stream hook; what the SAE does not reconstruct stays in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError, UserError, unknown_choice

_NOT_LINEAR_AT_ONE_TOKEN = {
    "temporal": "its activations depend on the whole sequence",
    "transcoder": "it writes to another hook than it reads",
}


class Intervention(Protocol):
    """New activations of the selected features from the present ones, on editable tokens only."""

    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], prompts: Int[Tensor, " n_tokens"], /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return the activations to write; `prompts` says which prompt each token belongs to."""
        ...


INTERVENTIONS: dict[str, type[Any]] = {}

T_INTERVENTION = TypeVar("T_INTERVENTION", bound=type[Any])


def register_intervention(name: str) -> Callable[[T_INTERVENTION], T_INTERVENTION]:
    """Make a frozen dataclass available under `name`, the name that configurations use."""

    def register(intervention: T_INTERVENTION) -> T_INTERVENTION:
        INTERVENTIONS[name] = intervention
        return intervention

    return register


def intervention_class(name: str) -> type[Any]:
    """Class registered under `name`; `ConfigError` for an unknown one."""
    if name not in INTERVENTIONS:
        raise unknown_choice("intervention", name, INTERVENTIONS)
    return INTERVENTIONS[name]


@register_intervention("clamp")
@dataclass(frozen=True)
class Clamp:
    """Set a feature to -multiplier where it fires: z_i ← -c if z_i > 0 (Farrell et al. 2024)."""

    multiplier: float
    """How far below zero, in units of the feature's activation."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.multiplier) and self.multiplier > 0):
            raise ConfigError(f"multiplier is {self.multiplier!r}. Give a positive number such as 20.")

    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _prompts: Int[Tensor, " n_tokens"], /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return -multiplier where a feature fires, its activation elsewhere."""
        return torch.where(acts > 0, -self.multiplier, acts)


@register_intervention("zero")
@dataclass(frozen=True)
class Zero:
    """Switch a feature off: z_i ← 0."""

    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], _prompts: Int[Tensor, " n_tokens"], /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return zeros."""
        return torch.zeros_like(acts)


def check_editable(sae: Any, name: str = "The SAE") -> None:
    """Raise `UserError` unless the SAE decodes residual-stream tokens one by one, as sums of decoder rows."""
    architecture = sae.cfg.architecture()
    for kind, reason in _NOT_LINEAR_AT_ONE_TOKEN.items():
        if kind in architecture:
            raise UserError(f"{name} has architecture {architecture!r}, which cannot be edited: {reason}.")
    if sae.cfg.normalize_activations != "none":
        raise UserError(
            f"{name} has normalize_activations {sae.cfg.normalize_activations!r}; only 'none' works. "
            "Fold the factor into its weights: sae.fold_activation_norm_scaling_factor(factor)."
        )
    if sae.cfg.reshape_activations != "none":
        raise UserError(
            f"{name} has reshape_activations {sae.cfg.reshape_activations!r}; only 'none' can be edited. "
            "Give an SAE trained on the residual stream."
        )


def decoder_rows(sae: Any, features: Sequence[int]) -> Float[Tensor, "n_selected d_in"]:
    """What one unit of each feature adds to the reconstruction, in float32.

    The row of W_dec, divided by its norm where the SAE rescales activations by it, as its own `decode` does.
    """
    rows = sae.W_dec.detach()[list(features)].float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=-1, keepdim=True)
    return rows


@torch.no_grad()
def feature_acts(
    sae: Any, residual: Float[Tensor, "n_tokens d_in"], features: Sequence[int], batch: int = 4096
) -> Float[Tensor, "n_tokens n_selected"]:
    """Activations of chosen features in float32, encoded batch by batch so that the full ones never pile
    up."""
    chosen = torch.tensor(list(features), dtype=torch.long, device=sae.W_dec.device)
    acts = [sae.encode(part.to(sae.W_dec.device, sae.W_dec.dtype))[:, chosen] for part in residual.split(batch)]
    return torch.cat(acts).to(residual.device, torch.float32)


@torch.no_grad()
def edit_residual(
    sae: Any,
    residual: Float[Tensor, "batch pos d_in"],
    features: Sequence[int],
    intervention: Intervention,
    editable: Bool[Tensor, "batch pos"],
) -> Float[Tensor, "batch pos d_in"]:
    """Residual stream with selected features edited: resid + (z_new - z)[selected] @ W_dec[selected].

    Only `editable` tokens change; position 0, special tokens and pads do not belong among them. Raises
    `UserError` for an SAE that cannot be edited.
    """
    check_editable(sae)
    edited = residual.clone()
    if not features or not bool(editable.any()):
        return edited
    tokens = residual[editable]
    acts = feature_acts(sae, tokens, features)
    change = intervention(acts, editable.nonzero()[:, 0]) - acts
    rows = decoder_rows(sae, features).to(residual.device)
    edited[editable] = (tokens.float() + change @ rows).to(residual.dtype)
    return edited
