"""What the model knows, and what it still answers under an edit at the hook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.data.batching import batches_by_length, check_fits_context
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.unlearning.option_scores import is_right, option_scores
from sae_lens_contrastive.unlearning.prompt_set import Edit, PromptSet, Reading, answer, read_prompts
from sae_lens_contrastive.unlearning.prompts import Prompt, PromptSpec, PromptWriter
from sae_lens_contrastive.unlearning.runners import Runner
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget
from sae_lens_contrastive.unlearning.unedited_cache import UneditedCache


class QuestionEvaluator:
    """Answers to the questions that the unedited model knows: those it answers right under every phrasing and order.

    A question is put under its first phrasing and the published order of its options, then, while the answers are
    right, under the others. The first prompts of the known questions keep their residual stream for edits.
    """

    def __init__(
        self,
        runner: Runner,
        model: Any,
        questions: Sequence[Question],
        prompt: PromptSpec,
        *,
        edit_special_tokens: bool = False,
        batch_tokens: int = 2048,
        budget: TensorBudget,
        cache: UneditedCache,
        title: str = "questions",
    ) -> None:
        self.runner = runner
        self.batch_tokens = batch_tokens
        self._pooling: Literal["sum", "max"] = prompt.pooling
        self._special: set[int] = set(model.tokenizer.all_special_ids)
        self._edit_special = edit_special_tokens
        self._budget = budget
        prompts = PromptWriter(model.tokenizer, prompt, packed=runner.packed).prompts(questions)
        longest = max((len(p.tokens) for p in prompts), default=0)
        check_fits_context(longest, model, "A question", "Shorten prompt.template or leave the question out.")
        rounds: dict[tuple[int, int], list[Prompt]] = {}
        for each in prompts:
            rounds.setdefault((each.phrasing, each.order), []).append(each)
        first = rounds.pop((0, 0), [])
        unedited = cache.tensors(
            f"answers_{title.replace(' ', '_')}",
            [[asdict(question) for question in questions], prompt.model_dump(), [each.tokens for each in prompts]],
            lambda: self._unedited(questions, first, list(rounds.values()), title),
        )
        known: list[int] = unedited["known"].tolist()
        base = self._prompt_set(first, Reading(unedited["residuals"], unedited["log_probs"]))
        self.asked = len(questions)
        """Number of questions put to the model."""
        self.known = [questions[i] for i in known]
        """Questions that the unedited model answers right under every phrasing and order."""
        self.prompts = base.only(known)
        """Their prompts in the first phrasing and the published order."""
        number = {i: n for n, i in enumerate(known)}
        self._paraphrases = [
            replace(each, question=number[each.question])
            for (_, order), others in rounds.items()
            for each in others
            if order == 0 and each.question in number
        ]

    def answers(self, sae: Any, edits: Sequence[Edit], progress: tqdm[Any] | None = None) -> list[Bool[Tensor, " n"]]:
        """Which known questions are still answered right, in their first phrasing, under each edit."""
        return [
            torch.tensor([right[i] for i in range(len(self.known))], dtype=torch.bool)
            for log_probs in self.prompts.edited(sae, edits, progress)
            for right in [self._answered(self.known, self.prompts.prompts, log_probs)]
        ]

    def option_probabilities(
        self, known: Sequence[int], sae: Any, edit: Edit
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Probabilities of the options of some of the known questions, before an edit and after it.

        They are those among the options, softmax of the scores, for the first phrasing.
        """
        part = self.prompts.only(known)
        questions = [self.known[i] for i in known]

        def probabilities(log_probs: Sequence[Float[Tensor, " n_spots"]]) -> list[list[float]]:
            scores = option_scores(questions, part.prompts, log_probs, self._pooling)
            return [torch.tensor(scores[i], dtype=torch.float64).softmax(0).tolist() for i in range(len(questions))]

        (edited,) = part.edited(sae, [edit])
        return probabilities(part.log_probs), probabilities(edited)

    def paraphrase_answers(self, sae: Any, edit: Edit) -> Bool[Tensor, " n_paraphrases"]:
        """Which of the other phrasings of the known questions are still answered right under an edit.

        The unedited model answers all of them right. Their residual stream is computed for the call.
        """
        with tqdm(total=len(self._paraphrases), desc="paraphrases", unit="prompt", leave=False) as progress:
            reading = self._read(self._paraphrases, self._budget.rest(), progress)
        (log_probs,) = self._prompt_set(self._paraphrases, reading).edited(sae, [edit])
        return self._paraphrases_answered(log_probs)

    def present_answers(self, title: str = "questions") -> Bool[Tensor, " n"]:
        """Which known questions the model answers right, in their first phrasing, with the weights that it has now."""
        answered = self._answered(self.known, self.prompts.prompts, self._present(self.prompts.prompts, title))
        return torch.tensor([answered[i] for i in range(len(self.known))], dtype=torch.bool)

    def present_paraphrase_answers(self) -> Bool[Tensor, " n_paraphrases"]:
        """Which of the other phrasings of the known questions it answers right with the weights that it has now."""
        return self._paraphrases_answered(self._present(self._paraphrases, "paraphrases"))

    def _present(self, prompts: Sequence[Prompt], title: str) -> list[Float[Tensor, " n_spots"]]:
        with tqdm(total=len(prompts), desc=title, unit="prompt", leave=False) as progress:
            return self._log_probs(prompts, progress)

    def _paraphrases_answered(self, log_probs: Sequence[Float[Tensor, " n_spots"]]) -> Bool[Tensor, " n_paraphrases"]:
        by_phrasing: dict[int, list[tuple[Prompt, Tensor]]] = {}
        for each, values in zip(self._paraphrases, log_probs, strict=True):
            by_phrasing.setdefault(each.phrasing, []).append((each, values))
        right = [self._answered(self.known, *zip(*pairs, strict=True)) for _, pairs in sorted(by_phrasing.items())]
        return torch.tensor([answer for answered in right for answer in answered.values()], dtype=torch.bool)

    def _unedited(
        self, questions: Sequence[Question], first: list[Prompt], others: Sequence[list[Prompt]], title: str
    ) -> dict[str, Tensor]:
        """What the model makes of the first prompts, and the questions that it knows."""
        known = list(range(len(questions)))
        total = len(first) + sum(map(len, others))
        with tqdm(total=total, desc=f"unedited answers, {title}", unit="prompt", disable=not total) as progress:
            reading = self._read(first, self._budget, progress)
            answered = self._answered(questions, first, reading.log_probs_of(first))
            known = [i for i in known if answered[i]]
            for prompts in others:
                put = [each for each in prompts if each.question in set(known)]
                progress.update(len(prompts) - len(put))
                answered = self._answered(questions, put, self._log_probs(put, progress))
                known = [i for i in known if answered.get(i, True)]
        return {"known": torch.tensor(known, dtype=torch.long), **vars(reading)}

    def _read(self, prompts: Sequence[Prompt], budget: TensorBudget, progress: tqdm[Any]) -> Reading:
        return read_prompts(self.runner, prompts, self.batch_tokens, budget, progress)

    def _prompt_set(self, prompts: Sequence[Prompt], reading: Reading) -> PromptSet:
        return PromptSet(
            self.runner,
            prompts,
            reading,
            special_tokens=self._special,
            edit_special_tokens=self._edit_special,
            batch_tokens=self.batch_tokens,
        )

    def _log_probs(self, prompts: Sequence[Prompt], progress: tqdm[Any]) -> list[Float[Tensor, " n_spots"]]:
        found: dict[int, Tensor] = {}
        for batch in batches_by_length([len(each.tokens) for each in prompts], self.batch_tokens):
            _, results = answer(self.runner, [prompts[i] for i in batch])
            found.update(zip(batch, results, strict=True))
            progress.update(len(batch))
        return [found[i] for i in range(len(prompts))]

    def _answered(
        self, questions: Sequence[Question], prompts: Sequence[Prompt], log_probs: Sequence[Float[Tensor, " n_spots"]]
    ) -> dict[int, bool]:
        """Whether each question with prompts, which share a phrasing and an order, is answered right."""
        scores = option_scores(questions, prompts, log_probs, self._pooling)
        return {i: is_right(questions[i], score) for i, score in scores.items()}
