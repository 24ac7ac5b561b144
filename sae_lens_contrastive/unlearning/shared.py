"""What all SAEs of one hook share: the questions that the model knows and the corpora at the hook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.interventions import TokenTable, feature_acts
from sae_lens_contrastive.selectors import Evidence, corpus_statistics
from sae_lens_contrastive.unlearning.answer_store import Answers
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.corpus import (
    Contexts,
    CorpusActivations,
    corpus_gradients,
    corpus_residuals,
    document_contexts,
    packed_contexts,
)
from sae_lens_contrastive.unlearning.forgetting import mean_chance
from sae_lens_contrastive.unlearning.measures import SaeEdit, WeightEdit, recalled
from sae_lens_contrastive.unlearning.output import KnownCounts
from sae_lens_contrastive.unlearning.runners import runner_for
from sae_lens_contrastive.unlearning.spec import EvalInputs, EvalSpec
from sae_lens_contrastive.unlearning.subject import reserved_features
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget
from sae_lens_contrastive.unlearning.unedited_cache import UneditedCache

UNEDITED_FOLDER = "unedited"
"""Where commands that evaluate many SAEs keep what depends on none, below their output folder."""


class HookData:
    """Unedited answers of one model with its residual stream at one hook; the corpora are read on first use.

    With a folder `cache` all this is kept there for other SAEs, specifications and processes.
    """

    def __init__(
        self, model: Any, hook_name: str, spec: EvalSpec, inputs: EvalInputs, cache: Path | None = None
    ) -> None:
        self.model = model
        self.hook_name = hook_name
        self.spec = spec
        self.inputs = inputs
        self.budget = TensorBudget(spec.cache_gib * 2**30)
        """Where residual streams are kept."""
        self._cache = UneditedCache.of(cache, model, hook_name, spec.batch_tokens)
        self._recalled_unedited: dict[str, list[bool]] = {}
        self._last_evidence: tuple[Any, Evidence] | None = None
        self._runner = runner_for(model, hook_name)
        self.evaluators = {
            f"{side}_{split}": self._evaluator(questions[split], f"{side} {split}")
            for split in inputs.forget_questions
            for side, questions in (("forget", inputs.forget_questions), ("retain", inputs.retain_questions))
        }
        """Known questions by side and split: `forget_select`, `retain_select`, `forget_held_out`, `retain_held_out`."""
        self.near = self._evaluator(inputs.near_questions, "near held_out")
        """Known held-out questions of near domains."""

    @property
    def knows_enough(self) -> bool:
        """Whether both sides have `min_known_questions` known questions in every split that was put."""
        return all(len(each.known) >= self.spec.min_known_questions for each in self.evaluators.values())

    @property
    def chance(self) -> float:
        """Accuracy of guessing on the known forget questions by which settings are chosen."""
        questions = self.inputs.forget_questions
        return mean_chance(self.evaluators["forget_select"].known or [q for split in questions.values() for q in split])

    @property
    def known_counts(self) -> KnownCounts:
        """Known questions of those put, by side and split."""
        return KnownCounts(
            **{name: (len(each.known), each.asked) for name, each in self.evaluators.items()},
            near=(len(self.near.known), self.near.asked),
        )

    def unedited_answers(self) -> Answers:
        """All known questions answered right, which is what known means."""
        return {name: torch.ones(len(each.known), dtype=torch.bool) for name, each in self.evaluators.items()}

    @cached_property
    def forget_text(self) -> CorpusActivations:
        """Forget corpus at the hook."""
        return self._activations(self._contexts(self.inputs.forget_texts), "forget corpus")

    @cached_property
    def retain_text(self) -> CorpusActivations:
        """Retain corpus at the hook."""
        return self._activations(self._contexts(self.inputs.retain_texts), "retain corpus")

    def evidence(self, sae: Any, *, gradients: bool) -> Evidence:
        """Statistics of an SAE's features on both corpora, with attributions if gradients are wanted.

        Those of the last SAE are kept.
        """
        last = self._last_evidence
        if last is not None and last[0] is sae and (last[1].forget.attribution is not None or not gradients):
            return last[1]
        forget, retain = self._gradients if gradients else (None, None)
        evidence = Evidence(
            forget=corpus_statistics(sae, self.forget_text.residuals, forget),
            retain=corpus_statistics(sae, self.retain_text.residuals, retain),
            reserved=reserved_features(sae),
        )
        self._last_evidence = (sae, evidence)
        return evidence

    def retain_acts(self, sae: Any, features: list[int]) -> tuple[Float[Tensor, "n_tokens n_selected"], TokenTable]:
        """Activations of chosen features on the retain corpus, and the context of each token."""
        context = self.retain_text.context_of_token
        with torch.no_grad():
            acts = feature_acts(sae, self.retain_text.residuals, features).cpu()
        return acts, TokenTable(prompt=context, counts=torch.ones(len(context), dtype=torch.bool))

    def recalled(self, side: str, edit: SaeEdit | WeightEdit | None = None) -> list[bool]:
        """Which known held-out questions of a side are answered openly, under an edit or without one."""
        options = self.spec.measures.recall
        assert options is not None
        known = self.evaluators[f"{side}_held_out"].known

        def ask() -> list[bool]:
            return recalled(
                self.model,
                self.hook_name,
                known,
                self.spec.prompt,
                options,
                edit=edit,
                batch_tokens=self.spec.batch_tokens,
                title=f"{side} questions",
            )

        if edit is not None:
            return ask()
        if side not in self._recalled_unedited:
            depends = [[asdict(question) for question in known], self.spec.prompt.model_dump(), options.model_dump()]
            found = self._cache.tensors(f"recall_{side}", depends, lambda: {"recalled": torch.tensor(ask())})
            self._recalled_unedited[side] = found["recalled"].tolist()
        return self._recalled_unedited[side]

    @cached_property
    def _gradients(self) -> tuple[Tensor, Tensor]:
        texts = ("forget corpus", self.forget_text), ("retain corpus", self.retain_text)
        forget, retain = (self._on_text(corpus_gradients, "gradients", text.contexts, title) for title, text in texts)
        return forget, retain

    def _contexts(self, texts: list[str]) -> Contexts:
        read = packed_contexts if self.spec.corpus_reading == "packed" else document_contexts
        return read(self.model.tokenizer, texts, self.spec.context_size, self.spec.max_corpus_tokens)

    def _activations(self, contexts: Contexts, title: str) -> CorpusActivations:
        return CorpusActivations(contexts, self._on_text(corpus_residuals, "residuals", contexts, title))

    def _on_text(self, compute: Callable[..., Tensor], what: str, contexts: Contexts, title: str) -> Tensor:
        """A row for each token of a corpus that counts."""

        def rows() -> dict[str, Tensor]:
            batch_tokens, allocate = self.spec.batch_tokens, self.budget.allocate
            found = compute(
                self.model, self.hook_name, contexts, batch_tokens=batch_tokens, title=title, allocate=allocate
            )
            return {what: found}

        name = f"{what}_{title.replace(' ', '_')}"
        return self._cache.tensors(name, [contexts.tokens, contexts.counted], rows)[what]

    def _evaluator(self, questions: list[Any], title: str) -> QuestionEvaluator:
        return QuestionEvaluator(
            self._runner,
            self.model,
            questions,
            self.spec.prompt,
            edit_special_tokens=self.spec.edit_special_tokens,
            batch_tokens=self.spec.batch_tokens,
            budget=self.budget,
            cache=self._cache,
            title=title,
        )
