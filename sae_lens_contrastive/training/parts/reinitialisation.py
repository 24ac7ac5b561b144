"""The part that lets pruned and dead features start anew."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.data.streams import generator_at
from sae_lens_contrastive.features.surgery import ReinitialisationOptions, reinitialise
from sae_lens_contrastive.training.parts.base import FeatureState, StepView, TrainingPart


class ReinitialisationPart(TrainingPart):
    """Gives pruned and dead features new directions every `every_n_steps` steps, those silent longest first.
    Features that a loss term keeps for itself are left alone.

    A feature that starts anew gets the mean importance of the features in use, so that pruning, which takes the least
    important, leaves it alone until measurements have brought it down: the memory of the importance is its grace
    period. The draw depends on the seed of the run and the step alone.
    """

    name: ClassVar[str] = "reinitialisation"

    def __init__(self, options: ReinitialisationOptions, n_steps: int) -> None:
        super().__init__()
        self.options = options
        self.last_step = options.until * n_steps
        self._n_reinitialised = 0
        self._last_step = -1
        self._last_features: Int[Tensor, " n"] = torch.zeros(0, dtype=torch.int64)

    @override
    def after_step(self, view: StepView) -> None:
        """Draw directions for the features that are due, if it is time."""
        done = view.step + 1
        if done % self.options.every_n_steps or done > self.last_step:
            return
        n_alive_again = self._n_alive_again(view)
        features = self._due(view)
        tokens = reinitialise(
            view.sae,
            view.optimizer,
            features,
            view.whole(view.output.sae_in),
            view.whole(view.output.sae_out),
            view.domains,
            generator_at(view.seed, view.step),
            self.options,
        )
        features = features[: len(tokens)]
        view.passes_since_fired[features] = 0
        view.features.pruned[features] = False
        if view.features.importance is not None:
            view.features.importance = _with_mean_of_others(view.features, features)
        self._n_reinitialised += len(features)
        self._last_step, self._last_features = view.step, features
        self.records.append(
            {"step": view.step, "n_reinitialised": len(features), "n_alive_again": n_alive_again},
        )

    @override
    def metrics(self, features: FeatureState) -> dict[str, float]:
        """How often a feature has started anew, over the whole run."""
        return {"n_reinitialised": float(self._n_reinitialised)}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The features reinitialised last, when, and the count."""
        counts = torch.tensor([self._n_reinitialised, self._last_step])
        return {"counts": counts, "last_features": self._last_features}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue counting."""
        self._n_reinitialised, self._last_step = state["counts"].tolist()
        self._last_features = state["last_features"]

    def _due(self, view: StepView) -> Int[Tensor, " n"]:
        order = view.passes_since_fired.argsort(descending=True, stable=True)
        due = order[((view.features.pruned | view.dead) & ~view.features.reserved)[order]]
        return due[: int(self.options.max_share * len(order))]

    def _n_alive_again(self, view: StepView) -> int:
        # A feature that has not fired since has counted every step.
        fired = view.passes_since_fired < view.step - self._last_step
        return int((fired & ~view.features.pruned)[self._last_features].sum())


def _with_mean_of_others(state: FeatureState, features: Int[Tensor, " n"]) -> Tensor:
    assert state.importance is not None
    others = (~state.pruned).index_fill(0, features, False)
    mean = state.importance[others].mean() if others.any() else state.importance.mean()
    return state.importance.index_fill(0, features, float(mean))
