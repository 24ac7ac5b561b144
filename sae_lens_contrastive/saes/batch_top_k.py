"""BatchTopK over the batch of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from sae_lens.saes.batchtopk_sae import BatchTopK
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.distributed import BatchShare, least, rank, rows_of_all
from sae_lens_contrastive.saes.objective import ContrastiveObjective


class BatchTopKOverRanks(BatchTopK):
    """SAELens' BatchTopK; with a `share` of a batch, the k n_rows largest activations of the tokens of all ranks.

    Each rank sends its own largest, as many as there could be among them, and keeps those that are chosen.
    """

    share: BatchShare | None = None

    @override
    def forward(self, x: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        if self.share is None:
            return super().forward(x)
        acts = x.relu()
        flat = acts.flatten()
        n = int(self.k * self.share.n_rows)
        own = flat.detach().topk(min(n, len(flat)), sorted=False)
        sizes = [min(n, size * acts.shape[-1]) for size in self.share.sizes]
        chosen = rows_of_all(own.values, sizes).topk(n, sorted=False).indices - sum(sizes[: rank()])
        kept = own.indices[chosen[(chosen >= 0) & (chosen < len(own.indices))]]
        return torch.zeros_like(flat).scatter(-1, kept, flat[kept]).reshape(acts.shape)


class SharedBatchTopK(ContrastiveObjective):
    """Mixin for SAELens' BatchTopK training SAEs: activations and threshold of the batch of all ranks."""

    activation_fn: Any

    @override
    def get_activation_fn(self) -> Callable[[Tensor], Tensor]:
        """The host's, over ranks."""
        return BatchTopKOverRanks(self.cfg.k)

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """The host's, with the batch divided as the trainer says."""
        self.activation_fn.share = self.batch_context.share
        return super().training_forward_pass(step_input)

    @override
    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        """The host's and the terms; what terms encode beside the batch is whole on every rank."""
        self.activation_fn.share = None
        return super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)

    @torch.no_grad()
    def update_topk_threshold(self, acts_topk: Tensor) -> None:
        """The host's running threshold, which follows the lowest activation that fires on any rank."""
        if self.batch_context.share is not None:
            fires = acts_topk > 0
            own = acts_topk[fires].min() if fires.any() else acts_topk.new_tensor(torch.inf)
            lowest = least(own)
            acts_topk = lowest.where(lowest < torch.inf, 0.0)[None]
        super().update_topk_threshold(acts_topk)  # pyright: ignore[reportAttributeAccessIssue] - the host class has it
