"""The part that groups correlated features."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.feature_stats import ClusterChange, ClusterTracker, CorrelationTracker, FeatureCorrelation
from sae_lens_contrastive.features.grouping import FeatureGroups, GroupingOptions, form_groups
from sae_lens_contrastive.training.parts.base import FeatureState, StepView, TrainingPart

_PERCENTILES = (50, 75, 85, 95, 99)
_N_SIZES = 64


class GroupingPart(TrainingPart):
    """Forms groups of features every `every_n_steps` steps, from tokens sampled evenly over the steps in between.

    Groups stay as they are when no two features fired together in the window.
    """

    name: ClassVar[str] = "grouping"

    def __init__(self, options: GroupingOptions, d_sae: int) -> None:
        super().__init__()
        self.options = options
        self.window = CorrelationTracker(d_sae, tokens_per_update=options.window_tokens)
        self.clusters = ClusterTracker(d_sae)

    @override
    def after_step(self, view: StepView) -> None:
        """Sample the step's tokens, and group if it is time."""
        n_steps, n_tokens = self.options.every_n_steps, self.options.window_tokens
        place = view.step % n_steps
        # The shares of the steps add up to the window.
        share = (place + 1) * n_tokens // n_steps - place * n_tokens // n_steps
        self.window.update(view.sampled_acts(share), share)
        if place + 1 == n_steps:
            self._group(view)
            self.window.reset()

    def _group(self, view: StepView) -> None:
        correlation = self.window.compute()
        groups = None if correlation is None else form_groups(correlation, self.options)
        if correlation is None or groups is None:
            return
        view.features.groups = groups.to(view.output.feature_acts.device)
        change = self.clusters.update(groups.groups, view.step)
        self.measured(self.options.every_n_steps, self._record(view.step, correlation, groups, change))

    def _record(
        self, step: int, correlation: FeatureCorrelation, groups: FeatureGroups, change: ClusterChange | None
    ) -> dict[str, Any]:
        sizes = [len(group) for group in groups.groups]
        percentiles = correlation.percentiles(_PERCENTILES)
        assert percentiles is not None
        return {
            "step": step,
            "method": self.options.method,
            "threshold": groups.threshold,
            "n_groups": len(sizes),
            "largest_group": max(sizes, default=0),
            "n_grouped": sum(sizes),
            "n_fired": len(correlation.features),
            **{f"p{percent}": value for percent, value in zip(_PERCENTILES, percentiles, strict=True)},
            "clusters": None if change is None else asdict(change),
            "sizes": sizes[:_N_SIZES],
        }

    @override
    def metrics(self, features: FeatureState) -> dict[str, float]:
        """Number of groups and the threshold they were cut at."""
        if features.groups is None:
            return {}
        return {"n_groups": float(len(features.groups.groups)), "correlation_threshold": features.groups.threshold}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The window so far and the last clustering; the groups are in the state of the features."""
        window = {f"window_{name}": tensor for name, tensor in self.window.state_dict().items()}
        return window | {f"clusters_{name}": tensor for name, tensor in self.clusters.state_dict().items()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue the window and the comparison of clusterings."""
        self.window.load_state_dict(_under("window_", state))
        self.clusters.load_state_dict(_under("clusters_", state))


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
