"""The part that follows how much the features still change."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.feature_stats import StabilityOptions, StabilityTracker
from sae_lens_contrastive.training.parts.base import StepView, TrainingPart


class StabilityPart(TrainingPart):
    """Compares decoder rows, groups and importances with those of `every_n_steps` steps ago."""

    name: ClassVar[str] = "stability"

    def __init__(self, options: StabilityOptions) -> None:
        super().__init__()
        self.options = options
        self.tracker = StabilityTracker()

    @override
    def after_step(self, view: StepView) -> None:
        """Compare, if it is time."""
        if (view.step + 1) % self.options.every_n_steps:
            return
        groups = None if view.features.groups is None else view.features.groups.groups
        stability = self.tracker.update(view.sae.W_dec, groups, view.features.importance)
        if stability is not None:
            self.measured(self.options.every_n_steps, {"step": view.step, **asdict(stability)})

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """What the next comparison is made with."""
        return self.tracker.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue comparing."""
        self.tracker.load_state_dict(state)
