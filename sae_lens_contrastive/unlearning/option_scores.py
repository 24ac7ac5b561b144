"""Scores of the options of questions, and whether the answer has the highest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.unlearning.not_finite import check_finite
from sae_lens_contrastive.unlearning.prompts import Prompt


def option_scores(
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    log_probs: Sequence[Float[Tensor, " n_spots"]],
    pooling: Literal["sum", "max"],
) -> dict[int, list[float]]:
    """Score of every option of each question with prompts, in nats: sum or highest of its spots' log-probabilities.

    Raises `UserError` for one that is not finite: it would pass for a wrong answer.
    """
    spots: dict[int, list[list[float]]] = {}
    for prompt, values in zip(prompts, log_probs, strict=True):
        check_finite(values.tolist(), f"The answers to the question {questions[prompt.question].id!r}")
        of_option = spots.setdefault(prompt.question, [[] for _ in questions[prompt.question].options])
        for spot, value in zip(prompt.spots, values.tolist(), strict=True):
            of_option[spot.option].append(value)
    pool = sum if pooling == "sum" else max
    return {question: [pool(values) for values in of_option] for question, of_option in spots.items()}


def is_right(question: Question, score: Sequence[float]) -> bool:
    """Whether the option of the highest score is the answer."""
    return max(range(len(score)), key=score.__getitem__) == question.answer_index
