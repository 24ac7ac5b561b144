"""The specification of an evaluation, and the questions and corpora that it names."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, field_validator

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.corpora import Document
from sae_lens_contrastive.data.questions import Question, Split, of_split
from sae_lens_contrastive.data.sources import held_out_entities, load_corpus_sources, load_question_sources
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import intervention_class
from sae_lens_contrastive.models import check_device, check_model_name
from sae_lens_contrastive.unlearning.prompts import PromptSpec

_Names = list[str]


class EvalSpec(StrictModel):
    """What is forgotten, what must stay, and the settings that are tried."""

    model: str
    """Model that is edited: a TransformerLens name, a local Hugging Face folder or an embedded model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model."""
    device: str = "cpu"
    """Where it runs: `cpu`, `cuda`, `cuda:1`, `mps`."""
    forget_domain: str = Field(min_length=1)
    """Name of what is forgotten, for the results."""
    forget_questions: _Names = Field(min_length=1)
    """Questions to be forgotten: `world_facts/<domain>` or paths of .jsonl files."""
    retain_questions: _Names = Field(min_length=1)
    """Questions that must stay: `world_facts/<domain>` or paths of .jsonl files."""
    near_questions: _Names = Field(default_factory=list)
    """Questions of domains close to the forgotten one: reported by domain at the chosen setting, on `held_out`,
    with no say in the choice."""
    forget_corpora: _Names = Field(min_length=1)
    """Text of the forget domain, on which features are ranked: `world_facts/<domain>` or paths. Documents
    that name a held-out entity are left out."""
    retain_corpora: _Names = Field(min_length=1)
    """Text of everything else, on which features must stay silent: `world_facts/<domain or general>` or
    paths. Documents that name a held-out entity are left out."""
    prompt: PromptSpec = PromptSpec()
    """How questions are put and answers read."""
    context_size: int = Field(default=128, ge=2)
    """Tokens of a corpus context, its BOS token included."""
    max_corpus_tokens: PositiveInt = 100_000
    """Tokens of forget text, and of retain text, on which firing rates are measured."""
    intervention: str = "clamp"
    """What is done to the selected features: `clamp` or `zero`."""
    retain_thresholds: list[FiniteFloat] = Field(default=[0.001, 0.01], min_length=1)
    """Settings: features that fire on this share of retain tokens or more are not selected. In (0, 1]."""
    n_features: list[PositiveInt] = Field(default=[10, 20], min_length=1)
    """Settings: number of features to select."""
    multipliers: list[PositiveFloat] = Field(default=[25.0, 50.0, 100.0, 200.0], min_length=1)
    """Settings: a clamped feature is set to minus this activation. Not used by `zero`."""
    retain_gate: float = Field(default=0.99, gt=0, le=1)
    """Pooled accuracy on the known retain questions that a setting must keep to count."""
    min_known_questions: PositiveInt = 10
    """Known questions needed on either side in either split; with fewer the evaluation stops and says so."""
    max_questions: PositiveInt | None = None
    """Questions put per side and split, chosen by a hash of the seed; None puts all."""
    batch_tokens: PositiveInt = 2048
    """Tokens per forward pass, pads included."""
    n_bootstrap: PositiveInt = 2000
    """Resamples behind the confidence interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of questions and documents, and of the bootstrap."""

    @field_validator("retain_thresholds")
    @classmethod
    def _are_shares(cls, values: list[float]) -> list[float]:
        if wrong := [value for value in values if not 0 < value <= 1]:
            raise ValueError(f"{wrong[0]} is not a share in (0, 1]. Example: [0.001, 0.01].")
        return values

    @field_validator("retain_thresholds", "n_features", "multipliers")
    @classmethod
    def _are_distinct_and_finite(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) != len(values):
            raise ValueError(f"{values} repeats a value. Each setting is tried once.")
        if float("inf") in values:
            raise ValueError(f"{values} must be finite.")
        return values

    @field_validator("intervention")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        intervention_class(value)
        return value


@dataclass(frozen=True)
class EvalInputs:
    """The questions and texts of a specification, read and checked."""

    forget_questions: dict[Split, list[Question]]
    """Questions to be forgotten, by split."""
    retain_questions: dict[Split, list[Question]]
    """Questions that must stay, by split."""
    near_questions: list[Question]
    """Held-out questions of near domains, which are only reported."""
    forget_texts: list[str]
    """Forget text without held-out entities, in reading order."""
    retain_texts: list[str]
    """Retain text without held-out entities, in reading order."""
    digest: str
    """SHA-256 of the specification and of the content of every file it names."""


def check_spec(spec: EvalSpec) -> EvalInputs:
    """Read every file that the specification names and check names, before any model loads.

    Raises `UserError` for an unknown model, device or source, a malformed file, or a question on both sides.
    """
    check_model_name(spec.model)
    check_device(spec.device)
    forget = load_question_sources(spec.forget_questions)
    retain = load_question_sources(spec.retain_questions)
    near = load_question_sources(spec.near_questions)
    asked = Counter(question.id for question in (*forget, *retain, *near))
    name, times = asked.most_common(1)[0]
    if times > 1:
        raise UserError(
            f"The question {name!r} appears {times} times in forget_questions, retain_questions and "
            "near_questions. A question is forgotten, retained or only reported, once."
        )
    forget_documents = load_corpus_sources(spec.forget_corpora, held_out_entities(forget))
    retain_documents = load_corpus_sources(spec.retain_corpora, held_out_entities(retain))
    content = {
        "spec": spec.model_dump(),
        "questions": [[asdict(question) for question in side] for side in (forget, retain, near)],
        "documents": [[asdict(text) for text in side] for side in (forget_documents, retain_documents)],
    }
    return EvalInputs(
        forget_questions=_chosen(forget, spec),
        retain_questions=_chosen(retain, spec),
        near_questions=_chosen(near, spec)["held_out"],
        forget_texts=_reading_order(forget_documents, spec.seed),
        retain_texts=_reading_order(retain_documents, spec.seed),
        digest=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
    )


def _chosen(questions: Sequence[Question], spec: EvalSpec) -> dict[Split, list[Question]]:
    """Per split at most `max_questions`, in their order, chosen by hash: no entity or domain is preferred."""

    def rank(question: Question) -> bytes:
        return hashlib.sha256(f"{spec.seed}|{question.id}".encode()).digest()

    splits: tuple[Split, Split] = ("select", "held_out")
    chosen: dict[Split, list[Question]] = {}
    for split in splits:
        candidates = of_split(questions, split)
        ids = {question.id for question in sorted(candidates, key=rank)[: spec.max_questions]}
        chosen[split] = [question for question in candidates if question.id in ids]
    return chosen


def _reading_order(documents: Iterable[Document], seed: int) -> list[str]:
    """Texts shuffled within their domain and dealt domain by domain, so that a token budget covers all
    domains."""
    by_domain: dict[str, list[str]] = {}
    for document in documents:
        by_domain.setdefault(document.domain, []).append(document.text)
    for texts in by_domain.values():
        random.Random(seed).shuffle(texts)
    return [text for round_ in zip_longest(*by_domain.values()) for text in round_ if text is not None]
