"""SAELens' training classes with the contrastive objective; each is saved in a stock inference architecture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sae_lens.registry import SAE_TRAINING_CLASS_REGISTRY, register_sae_training_class
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAEConfig, JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import SAEConfig, TrainingSAE
from sae_lens.saes.standard_sae import StandardSAEConfig, StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.saes.batch_top_k import SharedBatchTopK
from sae_lens_contrastive.saes.config import ContrastiveObjectiveConfig
from sae_lens_contrastive.saes.objective import ContrastiveObjective


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


@dataclass(kw_only=True)
class ContrastiveBatchTopKTrainingSAEConfig(ContrastiveObjectiveConfig, BatchTopKTrainingSAEConfig):
    """SAELens' BatchTopK training configuration with the contrastive objective."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "contrastive_batchtopk"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        """A trained SAE is saved as a stock `jumprelu` SAE."""
        return JumpReLUSAEConfig


class ContrastiveBatchTopKTrainingSAE(SharedBatchTopK, BatchTopKTrainingSAE):
    """BatchTopK SAE trained with the contrastive objective."""


@dataclass(kw_only=True)
class ContrastiveMatryoshkaBatchTopKTrainingSAEConfig(ContrastiveObjectiveConfig, MatryoshkaBatchTopKTrainingSAEConfig):
    """SAELens' Matryoshka BatchTopK training configuration with the contrastive objective.

    Without `matryoshka_widths` the levels are a sixteenth, an eighth, a quarter, a half and all of the features.
    """

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.matryoshka_widths:
            self.matryoshka_widths = sorted({max(1, self.d_sae // share) for share in (16, 8, 4, 2, 1)})
        widths = [0, *self.matryoshka_widths]
        if widths[-1] > self.d_sae or any(narrow >= wide for narrow, wide in pairwise(widths)):
            raise ConfigError(
                f"matryoshka_widths is {self.matryoshka_widths}; the widths must be above 0, increase, and end at most "
                f"at d_sae ({self.d_sae})."
            )

    @override
    @classmethod
    def architecture(cls) -> str:
        return "contrastive_matryoshka_batchtopk"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        """A trained SAE is saved as a stock `jumprelu` SAE."""
        return JumpReLUSAEConfig


class ContrastiveMatryoshkaBatchTopKTrainingSAE(SharedBatchTopK, MatryoshkaBatchTopKTrainingSAE):
    """Matryoshka BatchTopK SAE trained with the contrastive objective."""


@dataclass(kw_only=True)
class ContrastiveJumpReLUTrainingSAEConfig(ContrastiveObjectiveConfig, JumpReLUTrainingSAEConfig):
    """SAELens' JumpReLU training configuration with the contrastive objective."""

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jumprelu_sparsity_loss_mode == "quadratic" and not 0 < (self.target_l0 or 0) <= self.d_sae:
            raise ConfigError(
                f"target_l0 is {self.target_l0}, but jumprelu_sparsity_loss_mode: quadratic needs a number above 0 and "
                f"at most d_sae ({self.d_sae})."
            )
        if not self.jumprelu_bandwidth > 0:
            raise ConfigError(f"jumprelu_bandwidth is {self.jumprelu_bandwidth}; it must be above 0, such as 0.05.")

    @override
    @classmethod
    def architecture(cls) -> str:
        return "contrastive_jumprelu"

    @override
    def get_inference_config_class(self) -> type[SAEConfig]:
        """A trained SAE is saved as a stock `jumprelu` SAE."""
        return JumpReLUSAEConfig


class ContrastiveJumpReLUTrainingSAE(ContrastiveObjective, JumpReLUTrainingSAE):
    """JumpReLU SAE trained with the contrastive objective."""


TRAINING_ARCHITECTURES: dict[str, tuple[type[TrainingSAE[Any]], type[ContrastiveObjectiveConfig]]] = {
    "standard": (ContrastiveStandardTrainingSAE, ContrastiveStandardTrainingSAEConfig),
    "topk": (ContrastiveTopKTrainingSAE, ContrastiveTopKTrainingSAEConfig),
    "batchtopk": (ContrastiveBatchTopKTrainingSAE, ContrastiveBatchTopKTrainingSAEConfig),
    "jumprelu": (ContrastiveJumpReLUTrainingSAE, ContrastiveJumpReLUTrainingSAEConfig),
    "matryoshka_batchtopk": (
        ContrastiveMatryoshkaBatchTopKTrainingSAE,
        ContrastiveMatryoshkaBatchTopKTrainingSAEConfig,
    ),
}
"""Training class and configuration for each architecture, under SAELens' own name of it."""


def register_architectures() -> None:
    """Make the training classes known to SAELens; calling it again changes nothing."""
    for sae_class, config_class in TRAINING_ARCHITECTURES.values():
        if config_class.architecture() not in SAE_TRAINING_CLASS_REGISTRY:
            register_sae_training_class(config_class.architecture(), sae_class, config_class)
