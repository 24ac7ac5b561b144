"""The part that measures the importance of every feature."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import ImportanceOptions, ImportanceTracker, MutualInformationTracker
from sae_lens_contrastive.feature_stats.blocks import row_blocks
from sae_lens_contrastive.losses import FORGET
from sae_lens_contrastive.training.parts.base import FeatureState, StepView, TrainingPart

_QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
_N_TOP = 10
_COUNT_EVERY_N_STEPS = 5


class ImportancePart(TrainingPart):
    """Measures importance every `every_n_steps` steps, on that step's batch, and keeps it in `FeatureState.importance`.

    Mutual information is counted on every fifth step, which is enough tokens for a fraction of the cost, and over the
    steps since the measurement before. `threshold` is the one that `n_below_threshold` of the records goes by.

    Raises `ConfigError` if mutual information has a weight and the tokens have no domains.
    """

    name: ClassVar[str] = "importance"

    def __init__(self, options: ImportanceOptions, d_sae: int, threshold: float = 0.01) -> None:
        super().__init__()
        self.options = options
        self.threshold = threshold
        self.tracker = ImportanceTracker(d_sae, options)
        self.information: MutualInformationTracker | None = None
        if options.mutual_information_weight > 0:
            self.information = MutualInformationTracker(d_sae)

    @override
    def wants_gradients(self, step: int) -> bool:
        """On the steps that measure, if the gradient has a weight."""
        return self.options.gradient_weight > 0 and self._measures(step)

    @override
    def after_step(self, view: StepView) -> None:
        """Count firing per domain, and measure if it is time."""
        measures = self._measures(view.step)
        if self.information is not None and (measures or (view.step + 1) % _COUNT_EVERY_N_STEPS == 0):
            if view.domains is None:
                raise ConfigError(
                    "importance.mutual_information_weight is above 0, but no forget and retain corpus is given. "
                    "Give one, or set the weight to 0."
                )
            self._count(self.information, view, view.own_domains == FORGET)
        if measures:
            self._measure(view)

    @override
    def metrics(self, features: FeatureState) -> dict[str, float]:
        """Mean importance."""
        return {} if features.importance is None else {"mean_importance": float(features.importance.mean())}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """Counts since the last measurement; the importance itself is part of `FeatureState`."""
        return {} if self.information is None else self.information.state_dict()

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue counting."""
        if self.information is not None:
            self.information.load_state_dict(state)

    def _measures(self, step: int) -> bool:
        return (step + 1) % self.options.every_n_steps == 0

    def _count(self, information: MutualInformationTracker, view: StepView, is_forget: Bool[Tensor, " own"]) -> None:
        step = MutualInformationTracker(self.tracker.d_sae)
        step.update(view.output.feature_acts.detach(), is_forget)
        step.load_state_dict({name: view.total(counts) for name, counts in step.state_dict().items()})
        information.merge(step)

    def _measure(self, view: StepView) -> None:
        if view.features.importance is not None:
            self.tracker.resume_from(view.features.importance)
        attribution = gradient_attribution(view) if self.options.gradient_weight > 0 else None
        information = None
        if self.information is not None:
            information = self.information.compute()
            self.information.reset()
        activation = view.mean(view.output.feature_acts.detach())
        self.tracker.update(activation, attribution, information)
        self.tracker.step()
        importance = self.tracker.compute()
        assert importance is not None
        view.features.importance = importance
        self._record(view.step, importance)

    def _record(self, step: int, importance: Float[Tensor, " d_sae"]) -> None:
        levels = torch.quantile(importance, importance.new_tensor(list(_QUANTILES.values()))).tolist()
        top = importance.topk(min(_N_TOP, len(importance)))
        self.measured(
            self.options.every_n_steps,
            {
                "step": step,
                "quantiles": dict(zip(_QUANTILES, levels, strict=True)),
                "top_features": top.indices.tolist(),
                "top_importance": top.values.tolist(),
                "n_below_threshold": int((importance < self.threshold).sum()),
            },
        )


@torch.no_grad()
def gradient_attribution(view: StepView) -> Float[Tensor, " d_sae"]:
    """Mean over tokens of |dL/dz_i * z_i|: to first order, what the loss would lose or gain without the activation.

    L is the step's loss as trained, a mean over tokens, so that the values are small; importance scales them.
    """
    gradient = view.output.feature_acts.grad
    assert gradient is not None, "the step kept no gradient of the feature activations"
    acts = view.output.feature_acts
    total = acts.new_zeros(acts.shape[1], dtype=torch.float32)
    for rows in row_blocks(*acts.shape):
        total += (gradient[rows] * acts[rows]).abs_().sum(dim=0, dtype=torch.float32)
    return view.total(total) / view.n_tokens
