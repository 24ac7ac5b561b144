"""Open-ended recall: what the model says by itself, without options to choose from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import PositiveInt, field_validator
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.batching import batches_of_one_length, check_fits_context
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.models import greedy_continuations
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel, SaeEdit, WeightEdit
from sae_lens_contrastive.unlearning.prompts import PromptSpec, PromptWriter

_CHAT_TEMPLATE = "Complete the sentence with the missing words only.\n\n{stem} ..."


class RecallOptions(StrictModel):
    """How the model is asked."""

    max_new_tokens: PositiveInt = 8
    """Tokens that the model may say."""
    template: str | None = None
    """Text of the prompt; `{stem}` stands for the question's first phrasing, `{subject}` for its domain. None takes
    the stem alone, and in a chat asks for the rest of the sentence."""

    @field_validator("template")
    @classmethod
    def _has_stem(cls, value: str | None) -> str | None:
        if value is not None and "{stem}" not in value:
            raise ValueError(f"{value!r} lacks {{stem}}. Example: 'Question: {{stem}} Answer:'.")
        return value


class RecallResult(StrictModel):
    """Recall of known questions before and after an edit."""

    n_questions: int
    """Questions put."""
    before: float
    """Share whose answer is in what the unedited model says."""
    after: float
    """The same under the edit."""
    kept: float | None
    """Of those recalled before, the share still recalled; None if there were none."""


def recall_result(before: Sequence[bool], after: Sequence[bool]) -> RecallResult:
    """Compare recall of the same questions before and after an edit."""
    kept = [is_recalled for was_recalled, is_recalled in zip(before, after, strict=True) if was_recalled]
    return RecallResult(
        n_questions=len(before),
        before=sum(before) / len(before),
        after=sum(after) / len(after),
        kept=sum(kept) / len(kept) if kept else None,
    )


def recalled(
    model: Any,
    hook_name: str,
    questions: Sequence[Question],
    prompt: PromptSpec,
    options: RecallOptions,
    *,
    edit: SaeEdit | WeightEdit | None = None,
    batch_tokens: int = 2048,
    title: str = "questions",
) -> list[bool]:
    """Whether each question's answer is in the model's greedy continuation, case, accents and punctuation aside.

    `prompt` says whether the question is put as a chat. Raises `ConfigError` for a question beyond the context.
    """
    asked = _asked(model.tokenizer, questions, prompt, options)
    said = continuations(
        EditedModel(model, hook_name, edit),
        asked,
        options.max_new_tokens,
        batch_tokens,
        f"recall, {title}",
    )
    return [holds(text, question.answer) for text, question in zip(said, questions, strict=True)]


def continuations(
    edited: EditedModel, asked: Sequence[Sequence[int]], max_new_tokens: int, batch_tokens: int, title: str
) -> list[str]:
    """Greedy continuations, each up to a special token or `max_new_tokens`."""
    longest = max((len(tokens) for tokens in asked), default=0) + max_new_tokens
    check_fits_context(longest, edited.model, "A question with its continuation", "Leave the question out.")
    said = [""] * len(asked)
    with edited.generating(), tqdm(total=len(asked), desc=title, unit="question") as progress:
        for batch in batches_of_one_length([len(tokens) for tokens in asked], batch_tokens):
            found = greedy_continuations(edited.model, [asked[i] for i in batch], max_new_tokens)
            for i, tokens in zip(batch, found, strict=True):
                said[i] = edited.model.tokenizer.decode(tokens)
            progress.update(len(batch))
    return said


def holds(text: str, answer: str) -> bool:
    """Whether the answer is in the text as whole words, case, accents and punctuation aside."""
    return f" {normalised(answer)} " in f" {normalised(text)} "


def normalised(text: str) -> str:
    """Words in lower case without accents, with single spaces for everything between them."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.findall(r"\w+", "".join(c for c in decomposed if not unicodedata.combining(c))))


def _asked(
    tokenizer: Any, questions: Sequence[Question], prompt: PromptSpec, options: RecallOptions
) -> list[tuple[int, ...]]:
    """What the model is asked, without options and answer."""
    template = options.template or (_CHAT_TEMPLATE if prompt.chat else "{stem}")
    subjects = prompt.subjects if "{subject}" in template else {}
    spec = PromptSpec(chat=prompt.chat, template=template, subjects=subjects)
    first_phrasings = [replace(question, stems=question.stems[:1]) for question in questions]
    prompts = PromptWriter(tokenizer, spec, packed=True).prompts(first_phrasings)
    return [prompt.tokens[: prompt.n_asked] for prompt in prompts]
