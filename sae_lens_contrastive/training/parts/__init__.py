"""Trackers and surgeries of a training run, in the order in which they act after a step."""

from __future__ import annotations

from sae_lens_contrastive.feature_stats.importance import ImportanceOptions
from sae_lens_contrastive.feature_stats.stability import StabilityOptions
from sae_lens_contrastive.features.coverage import CoverageOptions
from sae_lens_contrastive.features.grouping import GroupingOptions
from sae_lens_contrastive.features.surgery import PruningOptions, ReinitialisationOptions
from sae_lens_contrastive.features.whitening import WhiteningOptions
from sae_lens_contrastive.losses.curriculum import CurriculumOptions
from sae_lens_contrastive.saes import ContrastiveObjectiveConfig
from sae_lens_contrastive.training.parts.base import FeatureState as FeatureState
from sae_lens_contrastive.training.parts.base import StepView as StepView
from sae_lens_contrastive.training.parts.base import TrainingPart as TrainingPart
from sae_lens_contrastive.training.parts.coverage import CoveragePart as CoveragePart
from sae_lens_contrastive.training.parts.curriculum import CurriculumPart as CurriculumPart
from sae_lens_contrastive.training.parts.grouping import GroupingPart as GroupingPart
from sae_lens_contrastive.training.parts.importance import ImportancePart as ImportancePart
from sae_lens_contrastive.training.parts.pruning import PruningPart as PruningPart
from sae_lens_contrastive.training.parts.reinitialisation import ReinitialisationPart as ReinitialisationPart
from sae_lens_contrastive.training.parts.stability import StabilityPart as StabilityPart
from sae_lens_contrastive.training.parts.warnings import WarningsPart as WarningsPart
from sae_lens_contrastive.training.parts.whitening import WhiteningPart as WhiteningPart


def build_parts(cfg: ContrastiveObjectiveConfig, n_steps: int) -> list[TrainingPart]:
    """The parts that a configuration switches on.

    The order matters: importance is fresh when pruning reads it, and what pruning masks can come back at once.
    """
    parts: list[TrainingPart] = []
    if (curriculum := cfg.section(CurriculumOptions)) is not None:
        parts.append(CurriculumPart(curriculum, n_steps))
    if (grouping := cfg.section(GroupingOptions)) is not None:
        parts.append(GroupingPart(grouping, cfg.d_sae))
    pruning = cfg.section(PruningOptions)
    if (importance := cfg.section(ImportanceOptions)) is not None:
        threshold = (pruning or PruningOptions()).threshold
        parts.append(ImportancePart(importance, cfg.d_sae, threshold))
    if pruning is not None:
        parts.append(PruningPart(pruning))
    if (reinitialisation := cfg.section(ReinitialisationOptions)) is not None:
        parts.append(ReinitialisationPart(reinitialisation, n_steps))
    if (whitening := cfg.section(WhiteningOptions)) is not None:
        parts.append(WhiteningPart(whitening, n_steps))
    if (coverage := cfg.section(CoverageOptions)) is not None:
        parts.append(CoveragePart(coverage, n_steps))
    if (stability := cfg.section(StabilityOptions)) is not None:
        parts.append(StabilityPart(stability))
    parts.append(WarningsPart(list(cfg.loss_terms)))
    return parts
