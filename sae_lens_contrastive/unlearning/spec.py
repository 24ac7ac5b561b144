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

from pydantic import Field, PositiveInt, field_validator

from sae_lens_contrastive.config import StrictModel, without_nulls
from sae_lens_contrastive.data.corpora import Document
from sae_lens_contrastive.data.questions import Question, Split, of_split
from sae_lens_contrastive.data.sources import held_out_entities, load_corpus_sources, load_question_sources
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.models import check_device, check_model_name, device_type
from sae_lens_contrastive.unlearning.measures import MeasureOptions
from sae_lens_contrastive.unlearning.prompts import PromptSpec
from sae_lens_contrastive.unlearning.settings import Setting, all_settings, interventions_of, selectors_of

_Names = list[str]

CHARACTERS_PER_TOKEN = 10
"""Characters of streamed text that are read for a token: English has four or five, and twice that leaves a choice."""


class EvalSpec(StrictModel):
    """What is forgotten, what must stay, and the settings that are tried."""

    model: str
    """Model that is edited: a TransformerLens name, a local Hugging Face folder or an embedded model."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model."""
    device: str = "cpu"
    """Where it runs: `cpu`, `cuda`, `cuda:1`."""
    forget_domain: str = Field(min_length=1)
    """Name of what is forgotten, for the results."""
    forget_questions: _Names = Field(min_length=1)
    """Questions to be forgotten: `world_facts/<domain>`, a .jsonl or .csv file, or `hub:NAME#CONFIG@SPLIT`."""
    retain_questions: _Names = Field(min_length=1)
    """Questions that must stay, named in the same way."""
    near_questions: _Names = Field(default_factory=list)
    """Questions of domains close to the forgotten one: reported by domain at the chosen setting, on `held_out`,
    with no say in the choice."""
    forget_corpora: _Names = Field(min_length=1)
    """Text of the forget domain, on which features are ranked: `world_facts/<domain>`, a file, or
    `hub:NAME#CONFIG@SPLIT:COLUMN`. Documents that name a held-out entity are left out."""
    retain_corpora: _Names = Field(min_length=1)
    """Text of everything else, on which features must stay silent, named in the same way; `world_facts/general` is
    of no domain. Documents that name a held-out entity are left out."""
    prompt: PromptSpec = PromptSpec()
    """How questions are put and answers read."""
    context_size: int = Field(default=128, ge=2)
    """Tokens of a corpus context, its BOS token included."""
    max_corpus_tokens: PositiveInt = 100_000
    """Tokens of forget text, and of retain text, on which firing rates are measured."""
    corpus_reading: Literal["documents", "packed"] = "documents"
    """`documents`: each document begins a context. `packed`: texts joined by the EOS token are cut into contexts, as
    SAEBench reads them."""
    selectors: dict[str, dict[str, Any]] = Field(default={"firing_rate": {"retain_threshold": [0.001, 0.01]}})
    """Settings: how features are ranked, {selector: {option: value, or list of values to sweep}}. Selectors:
    `firing_rate` (SAEBench's), `reserved` (those that training set aside), `activation_ratio`, `mutual_information`,
    `importance`, `attribution`."""
    n_features: list[PositiveInt] = Field(default=[10, 20], min_length=1)
    """Settings: number of features to edit."""
    interventions: dict[str, dict[str, Any]] = Field(default={"clamp": {"multiplier": [25.0, 50.0, 100.0, 200.0]}})
    """Settings: what is done to them, {intervention: {option: value, or list of values to sweep}}. Interventions:
    `clamp` (SAEBench's), `zero`, `hot_token_clamp`, `gated`."""
    edit_special_tokens: bool = False
    """Whether special tokens in a prompt, but never the first token, are edited too, as SAEBench does."""
    retain_gate: float = Field(default=0.99, gt=0, le=1)
    """Pooled accuracy on the known retain questions that a setting must keep to count."""
    min_known_questions: PositiveInt = 10
    """Known questions needed on either side in either split; with fewer the evaluation stops and says so."""
    max_questions: PositiveInt | None = None
    """Questions put per side and split, chosen by a hash of the seed; None puts all."""
    measures: MeasureOptions = MeasureOptions()
    """What else is measured at the chosen setting."""
    batch_tokens: PositiveInt = 2048
    """Tokens per forward pass, pads included."""
    cache_gib: float = Field(default=8.0, ge=0)
    """GiB of host memory for residual streams that are kept; what goes beyond lies in temporary files."""
    n_bootstrap: PositiveInt = 2000
    """Resamples behind the confidence interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice of questions and documents, and of the bootstrap."""

    @field_validator("selectors", "interventions", mode="before")
    @classmethod
    def _null_takes_one_out(cls, values: Any) -> Any:
        return without_nulls(values)

    @field_validator("n_features")
    @classmethod
    def _are_distinct(cls, values: list[int]) -> list[int]:
        if len(set(values)) != len(values):
            raise ValueError(f"{values} repeats a value. Each setting is tried once.")
        return values

    @field_validator("selectors")
    @classmethod
    def _are_selectors(cls, values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        selectors_of(values)
        return values

    @field_validator("interventions")
    @classmethod
    def _are_interventions(cls, values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        interventions_of(values)
        return values

    @property
    def settings(self) -> list[Setting]:
        """All settings of the sweep."""
        return all_settings(self.selectors, self.n_features, self.interventions)


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
    questions_digest: str
    """SHA-256 of the questions alone."""


def check_spec(spec: EvalSpec, *, any_device: bool = False) -> EvalInputs:
    """Read every file that the specification names and check names, before any model loads.

    With `any_device` the device need not be on this machine, which suits a plan.

    Raises `UserError` for an unknown model, device or source, a malformed file, or a question on both sides.
    """
    check_model_name(spec.model)
    if device_type(spec.device) == "mps":
        raise ConfigError("device: mps has no float64, in which an evaluation sums. Use device: cpu.")
    if not any_device:
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
    most = CHARACTERS_PER_TOKEN * spec.max_corpus_tokens
    forget_documents = load_corpus_sources(spec.forget_corpora, held_out_entities(forget), most)
    retain_documents = load_corpus_sources(spec.retain_corpora, held_out_entities(retain), most)
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
        digest=_sha256(content),
        questions_digest=_sha256(content["questions"]),
    )


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
