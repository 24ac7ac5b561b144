"""What both sides of the comparison with SAEBench are given: models, SAEs, questions, corpora and settings."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.data.sources import load_corpus_sources, load_question_sources
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.training import resolve_runs, train_runs
from sae_lens_contrastive.unlearning.prompts import PromptSpec

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("standard", "topk", "jumprelu")
FORGET = "wmdp-bio"
"""Name under which SAEBench's score looks for the questions to be forgotten."""
MMLU = ("college_biology", "high_school_us_history", "college_computer_science", "high_school_geography", "human_aging")
"""Domains of the letter prompt, the forgotten one first; the others are those that SAEBench retains."""
WORLD_FACTS = ("countries", "animals", "chemical_elements", "irregular_verbs", "opposites")
"""Domains of the cloze prompt, the forgotten one first."""
_SUBJECT = "The following are multiple choice questions (with answers) about {subject}.\n"
_PROMPT_OVERHEAD = 220
"""Tokens that a prompt has beside question and options, one a byte at worst."""


class Setting(NamedTuple):
    """One of the settings that are swept."""

    retain_threshold: float
    n_features: int
    multiplier: int


@dataclass(frozen=True)
class Grid:
    """The settings; SAEBench's own by default."""

    retain_thresholds: tuple[float, ...] = (0.001, 0.01)
    n_features: tuple[int, ...] = (10, 20)
    multipliers: tuple[int, ...] = (25, 50, 100, 200)

    @property
    def settings(self) -> list[Setting]:
        """All of them, in the order in which SAEBench goes through them."""
        axes = (self.retain_thresholds, self.n_features, self.multipliers)
        return [Setting(*values) for values in itertools.product(*axes)]


@dataclass(frozen=True)
class Subject:
    """A model, and how SAEBench's prompt with letters is written for it."""

    name: str
    hook_name: str
    """Residual stream at 73 % depth."""
    target: str
    """Target file that trains its SAEs."""
    chat: bool
    """Whether SAEBench's Gemma chat format fits the tokenizer; without, the prompt follows the BOS token."""
    letter_forms: tuple[str, ...] = ("{letter}", " {letter}")
    """Forms of a letter that are one token each."""
    context_size: int = 128
    """Tokens of a corpus context."""
    corpus_tokens: int = 20_000
    """Tokens of text of either side, about."""


SUBJECTS = {
    "smollm2-135m-instruct": Subject(
        name="smollm2-135m-instruct",
        hook_name="blocks.21.hook_resid_post",
        target="smollm2.yaml",
        chat=False,
    ),
    "tiny-random-gemma-2": Subject(
        name="tiny-random-gemma-2",
        hook_name="blocks.19.hook_resid_post",
        target="tiny.yaml",
        chat=True,
        letter_forms=("{letter}",),
        corpus_tokens=8_000,
    ),
    "random-gemma-2-2b": Subject(
        name="random-gemma-2-2b",
        hook_name="blocks.19.hook_resid_post",
        target="",
        chat=False,
    ),
}


@dataclass(frozen=True)
class Task:
    """Questions and texts, for one model."""

    subject: Subject
    prompt: Literal["cloze", "letter"]
    questions: Mapping[str, Sequence[Question]]
    """By SAEBench's name of the set; the one to be forgotten is called as `FORGET`."""
    forget_texts: Sequence[str]
    retain_texts: Sequence[str]
    seed: int = 0

    @property
    def prompt_spec(self) -> PromptSpec:
        """SAEBench's prompt, or the cloze, as this package writes it."""
        if self.prompt == "cloze":
            return PromptSpec()
        return PromptSpec(
            style="letter",
            chat=self.subject.chat,
            # Without a chat format a line break stands where the model's turn begins.
            template=_SUBJECT + "{stem}\n{options}" + ("" if self.subject.chat else "\n"),
            subjects={self.questions[FORGET][0].domain: "biology"},
            answer_start="Answer: (",
            letter_forms=list(self.subject.letter_forms),
        )

    @property
    def forget_texts_as_read(self) -> list[str]:
        """Forget texts in the order in which SAEBench, seeded with the task's seed, reads them."""
        return random.Random(self.seed).sample(list(self.forget_texts), len(self.forget_texts))

    def only(self, known: Mapping[str, Sequence[int]], limit: int) -> Task:
        """The task with the first `limit` of the given questions of every set."""
        questions = {name: [self.questions[name][i] for i in ids[:limit]] for name, ids in known.items()}
        return Task(self.subject, self.prompt, questions, self.forget_texts, self.retain_texts, self.seed)


@dataclass(frozen=True)
class SideResult:
    """What one side found, and how long it took."""

    features: dict[float, list[int]]
    """Features by retain threshold, best first, as many as the widest setting edits."""
    answers: dict[Setting, dict[str, list[bool]]]
    """Whether each question was answered right, by setting and set of questions."""
    score: float
    """Unlearning score."""
    seconds_selection: float
    """Reading the corpora and counting how often each feature fires."""
    seconds_questions: float
    """Putting all questions unedited and at every setting."""
    details: dict[str, Any] = field(default_factory=dict)
    """Where the time went, as far as the side tells."""


def make_task(
    subject: Subject, tokenizer: Any, prompt: Literal["cloze", "letter"], mmlu: Path | None, max_asked: int
) -> Task:
    """Questions and corpora; the letter prompt takes MMLU from a folder of `<domain>_test.csv`.

    At most `max_asked` questions of a set are put, the first that fit into the model's context; a set without any is
    left out.
    """
    domains = WORLD_FACTS if prompt == "cloze" else MMLU
    questions: dict[str, Sequence[Question]] = {}
    for domain in domains:
        source = f"world_facts/{domain}" if mmlu is None or prompt == "cloze" else str(mmlu / f"{domain}_test.csv")
        # SAEBench knows one phrasing of a question.
        loaded = [replace(question, stems=question.stems[:1]) for question in load_question_sources([source])]
        fitting = [question for question in loaded if _fits(question, tokenizer, subject)]
        if fitting:
            questions[FORGET if domain == domains[0] else domain] = fitting[:max_asked]
    corpus = "world_facts/countries" if prompt == "cloze" else "world_facts/animals"
    return Task(
        subject,
        prompt,
        questions,
        forget_texts=_texts(corpus, tokenizer, subject),
        retain_texts=_texts("world_facts/general", tokenizer, subject),
    )


def trained_sae(subject: Subject, architecture: str, steps: int, out: Path, model: Any) -> Path:
    """Folder of an SAE trained for some steps at the subject's hook; a finished one is kept."""
    overrides = {
        "variant": f"{architecture}_{steps}_steps",
        "hook_name": subject.hook_name,
        "sae": {"architecture": architecture},
        "training": {"training_tokens": steps * (2048 if subject.target == "smollm2.yaml" else 512)},
    }
    runs = resolve_runs(ROOT / "configs/targets" / subject.target, [ROOT / "configs/variants/baseline.yaml"], overrides)
    (folder,) = train_runs(runs, out / subject.name, model)
    return folder / "sae"


@torch.no_grad()
def made_sae(
    architecture: str, model: Any, hook_name: str, texts: Sequence[str], d_sae: int, share: float = 0.01
) -> SAE[Any]:
    """An SAE of random directions, each of which fires on about `share` of the tokens of some texts.

    It needs no training and its features are selective, which is all that parity and timing ask of it.
    """
    tokens = torch.tensor([encode_text(model.tokenizer, "\n".join(texts))[:256]], device=model.cfg.device)
    residual = residual_at_hook(model, hook_name, tokens)[0, 1:].float()
    d_in = residual.shape[1]
    common = {"d_in": d_in, "d_sae": d_sae, "device": str(model.cfg.device)}
    kinds: dict[str, Any] = {
        "standard": lambda: StandardSAE(StandardSAEConfig(**common)),
        "topk": lambda: TopKSAE(TopKSAEConfig(**common, k=max(1, round(share * d_sae)))),
        "jumprelu": lambda: JumpReLUSAE(JumpReLUSAEConfig(**common)),
    }
    sae = kinds[architecture]()
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    sae.W_dec.copy_(directions)
    sae.W_enc.copy_(directions.T)
    sae.b_dec.copy_(residual.mean(dim=0))
    needed = ((residual - sae.b_dec) @ sae.W_enc).quantile(1 - share, dim=0)
    sae.b_enc.zero_()
    if architecture == "standard":
        sae.b_enc.copy_(-needed)
    elif architecture == "jumprelu":
        sae.threshold.copy_(needed)
    sae.cfg.metadata.hook_name = hook_name
    return sae


def _fits(question: Question, tokenizer: Any, subject: Subject) -> bool:
    length = len(encode_text(tokenizer, " ".join((question.stems[0], *question.options)))) + _PROMPT_OVERHEAD
    return length <= (512 if subject.name == "tiny-random-gemma-2" else 8192)


def _texts(source: str, tokenizer: Any, subject: Subject) -> list[str]:
    """Texts from the beginning of a corpus, shuffled by its own seed, up to the subject's number of tokens."""
    texts = [document.text for document in load_corpus_sources([source])]
    random.Random(0).shuffle(texts)
    lengths = itertools.accumulate(len(encode_text(tokenizer, text)) for text in texts)
    return [text for text, total in zip(texts, lengths, strict=True) if total <= subject.corpus_tokens]
