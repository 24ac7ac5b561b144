"""The part that keeps all reserved features in use."""

from __future__ import annotations

from typing import ClassVar

import torch
from typing_extensions import override

from sae_lens_contrastive.data.streams import generator_at
from sae_lens_contrastive.features.coverage import CoverageOptions, cover
from sae_lens_contrastive.losses import FORGET
from sae_lens_contrastive.training.parts.base import StepView, TrainingPart


class CoveragePart(TrainingPart):
    """Lets reserved features that have not fired for `every_n_steps` steps begin with forget tokens on which no
    reserved feature fires.

    A term that asks for one reserved feature on every forget token is content with a single one that separates the
    domains as well as a half-space can; several that begin in different places can share the work. The draw depends
    on the seed of the run and the step alone.
    """

    name: ClassVar[str] = "coverage"

    def __init__(self, options: CoverageOptions, n_steps: int) -> None:
        super().__init__()
        self.options = options
        self.last_step = options.until * n_steps

    @override
    def after_step(self, view: StepView) -> None:
        """Start silent reserved features anew, if it is time."""
        done = view.step + 1
        if view.domains is None or done % self.options.every_n_steps or done > self.last_step:
            return
        is_forget = view.domains == FORGET
        fires = (view.output.feature_acts[:, view.features.reserved] > 0).any(dim=1)
        covered = view.whole(fires.float()) > 0
        silent = view.features.reserved & (view.passes_since_fired >= self.options.every_n_steps)
        features = silent.nonzero().squeeze(1)
        tokens = cover(
            view.sae,
            view.optimizer,
            features,
            view.whole(view.output.sae_in),
            is_forget,
            is_forget & ~covered,
            generator_at(view.seed, view.step),
            self.options.margin,
        )
        view.passes_since_fired[features[: len(tokens)]] = 0
        share = covered[is_forget].float().mean() if is_forget.any() else torch.tensor(0.0)
        self.records.append({"step": view.step, "n_started": len(tokens), "forget_tokens_covered": float(share)})
