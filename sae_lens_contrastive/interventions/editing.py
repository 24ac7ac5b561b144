"""The edit itself: which SAEs allow it, what the selected features are, and what their change adds to the stream.

All of it can be differentiated with respect to the residual stream; where gradients are not wanted, the caller says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions.base import Intervention, TokenTable

_MAX_ACTIVATIONS = 2**24
"""Activations held at once: encoding makes several tensors of this size."""

_NOT_LINEAR_AT_ONE_TOKEN = {
    "temporal": "its activations depend on the whole sequence",
    "transcoder": "it writes to another hook than it reads",
}


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


def tokens_at_once(sae: Any, batch: int) -> int:
    """How many tokens to encode at once: `batch`, or fewer where the dictionary is wide."""
    return max(1, min(batch, _MAX_ACTIVATIONS // int(sae.cfg.d_sae)))


def feature_acts(
    sae: Any, residual: Float[Tensor, "n_tokens d_in"], features: Sequence[int], batch: int = 4096
) -> Float[Tensor, "n_tokens n_selected"]:
    """Activations of chosen features in float32, encoded batch by batch: without gradients full ones never pile up."""
    chosen = torch.tensor(list(features), dtype=torch.long, device=sae.W_dec.device)
    parts = residual.split(tokens_at_once(sae, batch))
    acts = [sae.encode(part.to(sae.W_dec.device, sae.W_dec.dtype))[:, chosen] for part in parts]
    return torch.cat(acts).to(residual.device, torch.float32)


def edit_residual(
    sae: Any,
    residual: Float[Tensor, "batch pos d_in"],
    features: Sequence[int],
    intervention: Intervention,
    editable: Bool[Tensor, "batch pos"],
    counted: Bool[Tensor, "batch pos"] | None = None,
) -> Float[Tensor, "batch pos d_in"]:
    """Residual stream with selected features edited: resid + (z_new - z)[selected] @ W_dec[selected].

    Only `editable` tokens change; position 0, special tokens and pads do not belong among them. A row is a prompt, and
    those of its editable tokens that are `counted` (None: all) have a say in a gate. Raises `UserError` for an SAE that
    cannot be edited.
    """
    check_editable(sae)
    edited = residual.clone()
    if not features or not bool(editable.any()):
        return edited
    tokens = residual[editable]
    acts = feature_acts(sae, tokens, features)
    counts = torch.ones_like(editable) if counted is None else counted
    change = intervention(acts, TokenTable(editable.nonzero()[:, 0], counts[editable])) - acts
    rows = decoder_rows(sae, features).to(residual.device)
    edited[editable] = (tokens.float() + change @ rows).to(residual.dtype)
    return edited
