"""What an SAE loses of the residual stream, by itself: no feature is edited."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from sae_lens.evals import get_recons_loss
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.batching import batches_by_length, pad_right
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning.corpus import Contexts, mask_right, positions_before


class ReconstructionOptions(StrictModel):
    """How much text is read."""

    max_tokens: PositiveInt = 5000
    """Tokens of retain text."""


class ReconstructionResult(StrictModel):
    """An SAE's reconstruction of retain text, special tokens and position 0 left out."""

    n_tokens: int
    """Number of tokens."""
    explained_variance: float
    """1 - sum over tokens of |x - reconstruction|^2 / sum over tokens of |x - mean x|^2."""
    l0: float
    """Mean number of features that fire on a token."""
    loss: float
    """Mean next-token loss of the model, in nats per token."""
    reconstructed_loss: float
    """The same with the reconstruction in place of the residual stream."""
    ablated_loss: float
    """The same with zeros in its place."""
    loss_recovered: float
    """(ablated_loss - reconstructed_loss) / (ablated_loss - loss): 1 is a perfect reconstruction."""


@torch.no_grad()
def reconstruction(
    model: Any,
    hook_name: str,
    sae: Any,
    contexts: Contexts,
    options: ReconstructionOptions,
    *,
    batch_tokens: int = 2048,
) -> ReconstructionResult:
    """Variance explained at the hook, and what the model loses when it goes on from the reconstruction.

    The losses are SAELens' (`get_recons_loss`), on the first `max_tokens` tokens that count.
    """
    contexts = contexts.first(options.max_tokens)
    special = list(model.tokenizer.all_special_ids)
    losses = torch.zeros(3, dtype=torch.float64)
    inputs: list[Tensor] = []
    squared_error, n_firing = 0.0, 0.0
    with tqdm(total=contexts.n_tokens, desc="reconstruction", unit="tok", unit_scale=True) as progress:
        for rows in batches_by_length([len(context) for context in contexts.tokens], batch_tokens):
            tokens = pad_right([contexts.tokens[i] for i in rows], model)
            counted = mask_right([contexts.counted[i] for i in rows], tokens)
            found = get_recons_loss(sae, model, ActivationScaler(), tokens, False, True, special, {}, hook_name)
            losses += _sums(found, positions_before(counted))
            x = residual_at_hook(model, hook_name, tokens)[counted].float().to(sae.W_dec.device)
            acts = sae.encode(x)
            squared_error += (x - sae.decode(acts)).square().sum().item()
            n_firing += float((acts > 0).sum())
            inputs.append(x.cpu())
            progress.update(len(x))
    x = torch.cat(inputs)
    loss, reconstructed, ablated = (losses / len(x)).tolist()
    return ReconstructionResult(
        n_tokens=len(x),
        explained_variance=1 - squared_error / (x - x.mean(dim=0)).square().sum().item(),
        l0=n_firing / len(x),
        loss=loss,
        reconstructed_loss=reconstructed,
        ablated_loss=ablated,
        loss_recovered=(ablated - reconstructed) / (ablated - loss),
    )


def _sums(found: dict[str, Tensor], predicting: Tensor) -> Float[Tensor, " 3"]:
    """Sums of the losses at positions whose next token counts; the host gives one for each but the last position."""
    names = ("ce_loss_without_sae", "ce_loss_with_sae", "ce_loss_with_ablation")
    return torch.stack([found[name][predicting[:, :-1]].double().sum() for name in names]).cpu()
