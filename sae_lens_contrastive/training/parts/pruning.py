"""The part that masks features of low importance."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from sae_lens_contrastive.features.surgery import PruningOptions, features_to_prune, prune
from sae_lens_contrastive.training.parts.base import FeatureState, StepView, TrainingPart


class PruningPart(TrainingPart):
    """Masks features every `every_n_steps` steps from `start_step` on, as soon as importance is known.

    The mask is `FeatureState.pruned`; the trainer keeps the masked weights at zero by it.
    """

    name: ClassVar[str] = "pruning"

    def __init__(self, options: PruningOptions) -> None:
        super().__init__()
        self.options = options

    @override
    def after_step(self, view: StepView) -> None:
        """Mask the features that are due, if it is time."""
        done = view.step + 1
        importance, pruned = view.features.importance, view.features.pruned
        if done % self.options.every_n_steps or done < self.options.start_step or importance is None:
            return
        # A reserved feature counts as important, however little it does for the reconstruction.
        importance = importance.masked_fill(view.features.reserved, 1.0)
        features = features_to_prune(importance, pruned, self.options)
        prune(view.sae, view.optimizer, features)
        pruned[features] = True
        self.records.append({"step": view.step, "n_pruned": int(pruned.sum()), "n_newly_pruned": len(features)})

    @override
    def metrics(self, features: FeatureState) -> dict[str, float]:
        """How many features are masked now."""
        return {"n_pruned": float(features.pruned.sum())}
