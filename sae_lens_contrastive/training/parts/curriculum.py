"""The curriculum as a part of a run: it says where the training is."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.losses import FORGET
from sae_lens_contrastive.losses.base import WeightedTerm
from sae_lens_contrastive.losses.curriculum import Curriculum, CurriculumOptions, StagedScheduler
from sae_lens_contrastive.training.parts.base import FeatureState, StepView, TrainingPart


class CurriculumPart(TrainingPart):
    """Records the stages a training goes through; the trainer asks it how much forget text takes part."""

    name = "curriculum"

    def __init__(self, options: CurriculumOptions, n_steps: int) -> None:
        super().__init__()
        self.curriculum = Curriculum(options, n_steps)
        self._step = 0

    def part_of(
        self, batch: Float[Tensor, "batch d_in"], domains: Int[Tensor, " batch"], step: int
    ) -> tuple[Float[Tensor, "kept d_in"], Int[Tensor, " kept"]]:
        """The tokens that take part at a step, and their domains: of forget tokens the first ones."""
        is_forget = domains == FORGET
        n_kept = max(1, round(self.curriculum.forget_share(step) * int(is_forget.sum())))
        keep = ~is_forget | (is_forget.cumsum(0) <= n_kept)
        return (batch, domains) if bool(keep.all()) else (batch[keep.to(batch.device)], domains[keep])

    def scheduler(self, name: str, weighted: WeightedTerm) -> StagedScheduler:
        """Coefficient of a loss term over the stages."""
        return StagedScheduler(name, self.curriculum, weighted.warm_up_steps, weighted.coefficient)

    @override
    def after_step(self, view: StepView) -> None:
        self._step = view.step
        stage = self.curriculum.stage(view.step)
        if not self.records or self.records[-1]["stage"] != stage:
            share = self.curriculum.forget_share(view.step)
            self.records.append({"step": view.step, "stage": stage, "forget_share": share})

    @override
    def metrics(self, features: FeatureState) -> dict[str, float]:
        return {"forget_share": self.curriculum.forget_share(self._step)}
