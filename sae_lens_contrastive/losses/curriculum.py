"""Curriculum: which loss terms are on in which part of the training, and how much forget text takes part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sae_lens.training.optim import CoefficientScheduler
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError, unknown_choice
from sae_lens_contrastive.options import build_options


@dataclass(frozen=True)
class Stage:
    """One stage; it lasts until the next one starts."""

    start: float
    """Where it starts, as a share of the training steps, in [0, 1)."""
    loss_terms: list[str]
    """Loss terms that are on; all others have coefficient 0."""


@dataclass(frozen=True)
class CurriculumOptions:
    """Stages of a training, in order: the `curriculum` section of a variant."""

    stages: dict[str, dict[str, Any]]
    """{name: {start, loss_terms}}: for example reconstruct, differentiate, unlearn; the first one starts at 0."""
    forget_share_start: float = 1.0
    """Share of the forget tokens of a batch that is trained on at the beginning; the others are left out."""
    forget_share_full_at: float = 0.5
    """Where all forget tokens take part, as a share of the training steps; in between the share grows linearly."""

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.built().values()]
        if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise ConfigError(
                f"curriculum.stages start at {starts}; the first must start at 0 and each after the last."
            )
        if starts[-1] >= 1:
            raise ConfigError(f"curriculum.stages: the last stage starts at {starts[-1]}; it must start before 1.")
        for name in ("forget_share_start", "forget_share_full_at"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"curriculum.{name} is {getattr(self, name)}; it must be in (0, 1].")

    def built(self) -> dict[str, Stage]:
        """The stages as checked options."""
        return {name: build_options(f"curriculum.stages.{name}", Stage, stage) for name, stage in self.stages.items()}

    def share_on(self, term: str) -> float:
        """Share of the training steps in which a term is on."""
        stages = list(self.built().values())
        ends = [*(stage.start for stage in stages[1:]), 1.0]
        return sum(end - stage.start for stage, end in zip(stages, ends, strict=True) if term in stage.loss_terms)

    def check_terms(self, loss_terms: list[str]) -> None:
        """Raise `ConfigError` for a stage with an unknown term, or a term that is on in no stage."""
        stages = self.built()
        for name, stage in stages.items():
            for term in stage.loss_terms:
                if term not in loss_terms:
                    raise unknown_choice(f"term in curriculum.stages.{name}.loss_terms:", term, loss_terms)
        for term in loss_terms:
            if not any(term in stage.loss_terms for stage in stages.values()):
                raise ConfigError(f"loss_terms.{term} is on in no stage of the curriculum. Add it to one, or drop it.")


class Curriculum:
    """A curriculum laid out over a number of steps."""

    def __init__(self, options: CurriculumOptions, n_steps: int) -> None:
        self.options = options
        self.n_steps = n_steps
        self.stages = [(round(stage.start * n_steps), name, stage) for name, stage in options.built().items()]

    def stage(self, step: int) -> str:
        """Name of the stage that a step belongs to."""
        return [name for start, name, _ in self.stages if start <= step][-1]

    def active_since(self, term: str, step: int) -> int | None:
        """Step at which the term was switched on without a break since; None if it is off."""
        since = None
        for start, _, stage in self.stages:
            if start > step:
                break
            if term not in stage.loss_terms:
                since = None
            elif since is None:
                since = start
        return since

    def forget_share(self, step: int) -> float:
        """Share of the forget tokens that take part: s0 + (1 - s0) * min(1, step / (full_at * n_steps))."""
        start = self.options.forget_share_start
        return start + (1 - start) * min(1.0, step / max(1.0, self.options.forget_share_full_at * self.n_steps))


class StagedScheduler(CoefficientScheduler):
    """The host's linear warm-up of a coefficient, begun anew where a stage switches the term on."""

    def __init__(self, term: str, curriculum: Curriculum, warm_up_steps: int, final_value: float) -> None:
        super().__init__(warm_up_steps, final_value)
        self.term = term
        self.curriculum = curriculum
        self._set()

    @override
    def step(self) -> float:
        """Go to the next step and return its coefficient."""
        self.current_step += 1
        return self._set()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at a saved step."""
        super().load_state_dict(state_dict)
        self._set()

    def _set(self) -> float:
        since = self.curriculum.active_since(self.term, self.current_step)
        if since is None:
            self.current_value = 0.0
        else:
            done = (self.current_step - since) / self.warm_up_steps if self.warm_up_steps else 1.0
            self.current_value = self.final_value * min(1.0, done)
        return self.current_value
