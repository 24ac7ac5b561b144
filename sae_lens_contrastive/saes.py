"""Training SAEs with the contrastive objective, mixed into SAELens' own classes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Int
from sae_lens.config import dict_field
from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class
from sae_lens.saes.sae import (
    SAEConfig,
    TrainCoefficientConfig,
    TrainingSAE,
    TrainingSAEConfig,
    TrainStepInput,
    TrainStepOutput,
)
from sae_lens.saes.standard_sae import StandardSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.features.grouping import GroupingOptions
from sae_lens_contrastive.losses import LossContext, WeightedTerm, build_loss_terms
from sae_lens_contrastive.options import build_options


@dataclass(kw_only=True)
class ContrastiveObjectiveConfig(TrainingSAEConfig):
    """Configuration of the contrastive objective, mixed into a SAELens training configuration.

    The fields stay plain dictionaries: SAELens writes them to JSON and parses them from its command line.
    """

    loss_terms: dict[str, dict[str, Any]] = dict_field({})
    """Terms added to the host's loss: {name: {coefficient, warm_up_steps, ...options of the term}}."""

    grouping: dict[str, Any] | None = dict_field(None)
    """Correlation groups during training: {every_n_steps, percentile, min_size, window_tokens}; none without it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes()
        terms = build_loss_terms(self.loss_terms)
        grouping = self.grouping_options()
        if (terms or grouping) and getattr(self, "use_sparse_activations", False):
            raise ConfigError("loss_terms and grouping need dense activations. Set use_sparse_activations: false.")
        reserved = set(self.host_coefficients()) & set(terms)
        if reserved:
            raise ConfigError(f"loss_terms: {sorted(reserved)[0]!r} is a coefficient of the host architecture already.")
        for name, weighted in terms.items():
            if weighted.term.needs_groups and grouping is None:
                raise ConfigError(
                    f"loss_terms.{name} works on correlation groups, but the SAE configuration has no grouping. "
                    "Add for example grouping: {every_n_steps: 100, percentile: 75}."
                )

    def _check_sizes(self) -> None:
        for name in ("d_in", "d_sae"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        k = getattr(self, "k", 1)
        if not 1 <= k <= self.d_sae:
            raise ConfigError(f"k is {k}; it must be from 1 to d_sae ({self.d_sae}).")

    @classmethod
    def host_coefficients(cls) -> tuple[str, ...]:
        """Names of the coefficients that the host class schedules itself."""
        return ("l1",)

    def grouping_options(self) -> GroupingOptions | None:
        """The grouping section as checked options."""
        return None if self.grouping is None else build_options("grouping", GroupingOptions, self.grouping)

    def terms_that_need_domains(self) -> list[str]:
        """Names of the terms that cannot do without a forget and a retain corpus."""
        return [name for name, weighted in build_loss_terms(self.loss_terms).items() if weighted.term.needs_domains]


@dataclass(frozen=True)
class BatchContext:
    """What a trainer knows about the batch it is about to step on."""

    domains: Int[Tensor, " batch"] | None = None
    """Domain label of each token."""
    groups: tuple[Int[Tensor, " size"], ...] = ()
    """Current correlation groups."""


@dataclass
class ContrastiveTrainStepInput(TrainStepInput):
    """SAELens' step input, widened by what the loss terms need."""

    batch_context: BatchContext


class ContrastiveObjective(TrainingSAE[Any]):
    """Mixin: the host's loss plus the configured terms.

    loss = host loss + sum over terms of coefficient(step) * term(batch); every summand is logged as
    `losses/<name>_loss`. The host's forward pass, sparsity loss and dead-feature handling are untouched: the terms
    enter where the host asks for its auxiliary losses.
    """

    def __init__(self, cfg: Any, use_error_term: bool = False) -> None:
        super().__init__(cfg, use_error_term)
        self.loss_terms: dict[str, WeightedTerm] = build_loss_terms(cfg.loss_terms)
        self.batch_context = BatchContext()

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
        if isinstance(step_input, ContrastiveTrainStepInput):
            return super().training_forward_pass(step_input)
        shared = {field.name: getattr(step_input, field.name) for field in fields(TrainStepInput)}
        return super().training_forward_pass(ContrastiveTrainStepInput(**shared, batch_context=self.batch_context))

    @override
    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        """The host's auxiliary losses and every term times its current coefficient."""
        host = super().calculate_aux_loss(step_input, feature_acts, hidden_pre, sae_out)  # pyright: ignore[reportAbstractUsage]
        losses = host if isinstance(host, dict) else {"auxiliary_loss": host}
        if not self.loss_terms:
            return losses
        assert isinstance(step_input, ContrastiveTrainStepInput)
        context = LossContext(
            sae_in=step_input.sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=hidden_pre,
            W_dec=self.W_dec,
            domains=step_input.batch_context.domains,
            groups=step_input.batch_context.groups,
        )
        own = {
            f"{name}_loss": step_input.coefficients[name] * weighted.term(context)
            for name, weighted in self.loss_terms.items()
        }
        return {**losses, **own}


@dataclass(kw_only=True)
class ContrastiveStandardTrainingSAEConfig(ContrastiveObjectiveConfig, StandardTrainingSAEConfig):
    """SAELens' standard (ReLU, L1) training configuration with the contrastive objective."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "contrastive_standard"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        """A trained SAE is saved as a stock `standard` SAE."""
        return StandardSAEConfig


class ContrastiveStandardTrainingSAE(ContrastiveObjective, StandardTrainingSAE):
    """Standard (ReLU, L1) SAE trained with the contrastive objective."""


@dataclass(kw_only=True)
class ContrastiveTopKTrainingSAEConfig(ContrastiveObjectiveConfig, TopKTrainingSAEConfig):
    """SAELens' TopK training configuration with the contrastive objective."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "contrastive_topk"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        """A trained SAE is saved as a stock `topk` SAE."""
        return TopKSAEConfig


class ContrastiveTopKTrainingSAE(ContrastiveObjective, TopKTrainingSAE):
    """TopK SAE trained with the contrastive objective."""


TRAINING_ARCHITECTURES: dict[str, tuple[type[TrainingSAE[Any]], type[ContrastiveObjectiveConfig]]] = {
    "standard": (ContrastiveStandardTrainingSAE, ContrastiveStandardTrainingSAEConfig),
    "topk": (ContrastiveTopKTrainingSAE, ContrastiveTopKTrainingSAEConfig),
}
"""Training class and configuration for each stock architecture a trained SAE is saved as."""


def register_architectures() -> None:
    """Make the training classes known to SAELens; calling it again changes nothing."""
    for sae_class, config_class in TRAINING_ARCHITECTURES.values():
        if config_class.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
            register_sae_training_class(config_class.architecture(), sae_class, config_class)
