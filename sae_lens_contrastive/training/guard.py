"""A step whose numbers are not finite is not taken: the run stops, and what made it stop is written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_bytes_atomic, write_json

FAILURE_FILE = "failure.json"
FAILURE_BATCH_FILE = "failure.safetensors"


class StepGuard:
    """Looks at the batch, the losses and the gradients of every step before the optimiser moves a weight.

    What stopped a run is written to `folder`, if there is one: step, losses and parameters to `failure.json`, the
    batch with its domains to `failure.safetensors`.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.step = 0
        self.batch: Tensor | None = None
        self.domains: Tensor | None = None

    def begin(self, step: int, batch: Float[Tensor, "batch d_in"], domains: Int[Tensor, " batch"] | None) -> None:
        """Look at the batch of a step; `UserError` if it is not finite."""
        self.step, self.batch, self.domains = step, batch, domains
        if not bool(batch.float().sum().isfinite()):
            n_wrong = int((~batch.isfinite().all(dim=1)).sum())
            raise self._stop(
                f"{n_wrong} of the {len(batch)} activations of the batch are not finite",
                {},
                [],
                "The model made them: run it in float32 or bfloat16 in place of float16, or look at the text.",
            )

    def check(self, losses: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Look at the losses and gradients of the step; `UserError` names what is not finite."""
        # Sums, because a test of every number would take as long as writing it anew.
        sums = torch.stack([*(loss.detach().float() for loss in losses.values())])
        totals = torch.stack([gradient.sum().float() for gradient in gradients.values()])
        if bool(torch.cat([sums, totals]).isfinite().all()):
            return
        wrong_losses = [name for name, loss in losses.items() if not bool(loss.isfinite())]
        wrong_gradients = [name for name, gradient in gradients.items() if not bool(gradient.sum().isfinite())]
        if wrong_losses:
            what = f"{', '.join(wrong_losses)} {'is' if len(wrong_losses) == 1 else 'are'} not finite"
            cure = "Lower its coefficient or the learning rate."
        else:
            what = f"the gradient of {', '.join(wrong_gradients)} is not finite, while every loss is"
            cure = "Lower the learning rate."
        raise self._stop(what, {name: float(loss) for name, loss in losses.items()}, wrong_gradients, cure)

    def _stop(self, what: str, losses: dict[str, float], gradients: list[str], cure: str) -> UserError:
        message = f"Step {self.step}: {what}. The step was not taken."
        if self.folder is None:
            return UserError(f"{message} {cure}")
        assert self.batch is not None
        tensors = {"batch": self.batch} | ({} if self.domains is None else {"domains": self.domains})
        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        write_bytes_atomic(self.folder / FAILURE_BATCH_FILE, content)
        report = {
            "step": self.step,
            "what": what,
            # A loss that is no number is told in words: JSON has none for it.
            "losses": {name: loss if abs(loss) < float("inf") else str(loss) for name, loss in losses.items()},
            "gradients": gradients,
        }
        write_json(self.folder / FAILURE_FILE, report)
        return UserError(f"{message} {cure} Its batch is in {self.folder / FAILURE_BATCH_FILE}.")


def gradients_of(sae: Any) -> dict[str, Tensor]:
    """The gradients of all parameters that have one, by name."""
    return {name: parameter.grad for name, parameter in sae.named_parameters() if parameter.grad is not None}
