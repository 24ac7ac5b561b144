"""What all SAEs of one hook share: the questions that the model knows and the residual stream of the
corpora."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.data.questions import Split
from sae_lens_contrastive.features.selection import firing_rates
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.corpus import corpus_residuals
from sae_lens_contrastive.unlearning.output import KnownCounts
from sae_lens_contrastive.unlearning.spec import EvalInputs, EvalSpec
from sae_lens_contrastive.unlearning.sweep import FiringRates


class HookData:
    """Unedited answers of one model with its residual stream at one hook; the corpora are read on first
    use."""

    def __init__(self, model: Any, hook_name: str, spec: EvalSpec, inputs: EvalInputs) -> None:
        self.model = model
        self.hook_name = hook_name
        self.spec = spec
        self.inputs = inputs
        self.forget = {split: self._evaluator("forget", split) for split in inputs.forget_questions}
        self.near = QuestionEvaluator(
            model, hook_name, inputs.near_questions, spec.prompt, batch_tokens=spec.batch_tokens, title="near held_out"
        )
        self.retain = {split: self._evaluator("retain", split) for split in inputs.retain_questions}
        if self.knows_enough:
            self._forget_residuals = self._residuals(inputs.forget_texts, "forget corpus")
            self._retain_residuals = self._residuals(inputs.retain_texts, "retain corpus")

    @property
    def knows_enough(self) -> bool:
        """Whether both sides have `min_known_questions` known questions in both splits."""
        evaluators = (*self.forget.values(), *self.retain.values())
        return all(len(evaluator.known) >= self.spec.min_known_questions for evaluator in evaluators)

    @property
    def known_counts(self) -> KnownCounts:
        """Known questions of those put, by side and split."""
        return KnownCounts(
            forget_select=_counts(self.forget["select"]),
            forget_held_out=_counts(self.forget["held_out"]),
            retain_select=_counts(self.retain["select"]),
            retain_held_out=_counts(self.retain["held_out"]),
        )

    def rates(self, sae: Any) -> FiringRates:
        """Firing rates of an SAE's features on both corpora; only if `knows_enough`."""
        return FiringRates(
            forget=firing_rates(sae, self._forget_residuals), retain=firing_rates(sae, self._retain_residuals)
        )

    def _residuals(self, texts: list[str], title: str) -> Float[Tensor, "n_tokens d_in"]:
        return corpus_residuals(
            self.model,
            self.hook_name,
            texts,
            context_size=self.spec.context_size,
            max_tokens=self.spec.max_corpus_tokens,
            batch_tokens=self.spec.batch_tokens,
            title=title,
        )

    def _evaluator(self, side: str, split: Split) -> QuestionEvaluator:
        questions = self.inputs.forget_questions if side == "forget" else self.inputs.retain_questions
        return QuestionEvaluator(
            self.model,
            self.hook_name,
            questions[split],
            self.spec.prompt,
            batch_tokens=self.spec.batch_tokens,
            title=f"{side} {split}",
        )


def _counts(evaluator: QuestionEvaluator) -> tuple[int, int]:
    return len(evaluator.known), evaluator.asked
