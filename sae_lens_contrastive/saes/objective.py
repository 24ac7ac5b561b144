"""The contrastive objective, mixed into SAELens' training SAEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Int
from sae_lens.saes.sae import TrainCoefficientConfig, TrainingSAE, TrainStepInput, TrainStepOutput
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.distributed import BatchShare, summed
from sae_lens_contrastive.losses import LossContext, WeightedTerm, build_loss_terms
from sae_lens_contrastive.losses.output_space import OutputSpace


@dataclass(frozen=True)
class BatchContext:
    """What a trainer knows about the batch it is about to step on."""

    domains: Int[Tensor, " batch"] | None = None
    """Domain label of each token of the batch, those of other ranks included."""
    share: BatchShare | None = None
    """How the batch is divided among ranks, if the step is on this rank's share of it."""
    groups: tuple[Int[Tensor, " size"], ...] = ()
    """Current correlation groups."""
    step: int = 0
    """Training steps done before this one."""
    output_space: OutputSpace | None = None
    """The model above the hook, for terms that run it."""
    keep_gradients: bool = False
    """Whether `feature_acts.grad` is wanted after the backward pass."""
    n_shielded: int = 0
    """First features whose pre-activations get no gradient from the batch; terms on other text reach their encoder."""

    @property
    def own_domains(self) -> Int[Tensor, " own"] | None:
        """Domain label of each token that the step is on."""
        return self.domains if self.share is None or self.domains is None else self.domains[self.share.own]


@dataclass
class ContrastiveTrainStepInput(TrainStepInput):
    """SAELens' step input, widened by what the loss terms need."""

    batch_context: BatchContext


class ContrastiveObjective(TrainingSAE[Any]):
    """Mixin: the host's loss plus the configured terms.

    loss = host loss + sum over terms of coefficient(step) * term(batch); every summand is logged as
    `losses/<name>_loss`. The host's forward pass, sparsity loss and dead-feature handling are untouched: the terms
    enter where the host asks for its auxiliary losses. Where ranks train together, `loss` is this rank's summand of the
    loss of all, and `losses` are of all.
    """

    def __init__(self, cfg: Any, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        self.loss_terms: dict[str, WeightedTerm] = build_loss_terms(cfg.loss_terms)
        self.batch_context = BatchContext()
        self.losses: dict[str, Tensor] = {}
        """Losses of the last training step, without their graph."""

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        """The host's coefficients and one for every term, each with its warm-up."""
        own = {
            name: TrainCoefficientConfig(weighted.coefficient, weighted.warm_up_steps)
            for name, weighted in self.loss_terms.items()
        }
        return {**super().get_coefficients(), **own}  # pyright: ignore[reportAbstractUsage] - the host class implements it

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """The host's forward pass on an input widened by the batch context that the trainer set."""
        if not isinstance(step_input, ContrastiveTrainStepInput):
            shared = {field.name: getattr(step_input, field.name) for field in fields(TrainStepInput)}
            step_input = ContrastiveTrainStepInput(**shared, batch_context=self.batch_context)
        output = super().training_forward_pass(step_input)
        self.losses = {name: loss.detach() for name, loss in {**output.losses, "overall_loss": output.loss}.items()}
        if (share := step_input.batch_context.share) is not None:
            self.losses = _of_all_ranks(self.losses, share)
            output.losses = {name: self.losses[name] for name in output.losses}
            output.loss = output.loss * share.weight
        if step_input.batch_context.keep_gradients:
            output.feature_acts.retain_grad()
        if n := step_input.batch_context.n_shielded:
            output.hidden_pre.register_hook(
                lambda gradient: gradient.index_fill(1, torch.arange(n).to(gradient.device), 0)
            )
        return output

    @override
    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        """The host's auxiliary losses and every term that is on, times its current coefficient."""
        host = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)  # pyright: ignore[reportAbstractUsage]
        losses = host if isinstance(host, dict) else {"auxiliary_loss": host}
        if not self.loss_terms:
            return losses
        assert isinstance(step_input, ContrastiveTrainStepInput)
        batch = step_input.batch_context
        context = LossContext(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=hidden_pre,
            W_dec=self.W_dec,
            domains=batch.own_domains,
            groups=batch.groups,
            step=batch.step,
            sae=self,
            output_space=batch.output_space,
            share=batch.share,
            batch_domains=batch.domains,
        )
        # Sums over thousands of features and differences of logarithms need float32, whatever the forward pass ran in.
        with torch.autocast(sae_out.device.type, enabled=False):
            for name, weighted in self.loss_terms.items():
                coefficient = step_input.coefficients[name]
                # A term that is off costs nothing, whatever it would run.
                off = sae_out.new_zeros(())
                seen = context if weighted.term.over_ranks or not coefficient else context.of_all_ranks
                losses[f"{name}_loss"] = coefficient * weighted.term(seen) if coefficient else off
        return losses


def _of_all_ranks(losses: Mapping[str, Tensor], share: BatchShare) -> dict[str, Tensor]:
    """Losses of the whole batch: means over a rank's tokens count by its share, what is of all already stays."""
    values = summed(torch.stack([loss.float() for loss in losses.values()]) * share.weight)
    return dict(zip(losses, values.unbind(), strict=True))
