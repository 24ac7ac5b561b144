"""The plan of an evaluation as text: what is put, read and kept, in what memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import ModelShape, model_shape
from sae_lens_contrastive.training.costs import BYTES
from sae_lens_contrastive.training.plan import Plan
from sae_lens_contrastive.unlearning.prompt_set import PAST_PER_TOKEN
from sae_lens_contrastive.unlearning.prompts import PromptSpec
from sae_lens_contrastive.unlearning.spec import EvalInputs, EvalSpec

_CHARACTERS_PER_TOKEN = 3.5
_GIB = 2**30


@dataclass(frozen=True)
class EvalMemory:
    """Bytes of an evaluation; tokens of prompts are estimated from their characters."""

    weights: float
    """The model, on its device."""
    questions: float
    """Residual stream of all questions in their first phrasing, in host memory: tokens · d_model · bytes."""
    corpora: float
    """Residual stream of both corpora, in host memory, with gradients where a selector needs them."""
    in_files: float
    """What of the two exceeds `cache_gib` and lies in temporary files."""
    at_once: float
    """A pass above the hook at its peak, on the device: keys and values of a batch with what precedes it at every
    layer, its residual stream, and logits of a quarter of its tokens, in float32."""

    @property
    def host(self) -> float:
        """Host memory beside the program, with the model on another device."""
        return self.questions + self.corpora - self.in_files


def estimate_memory(
    spec: EvalSpec,
    shape: ModelShape,
    questions: Mapping[str, Sequence[Question]],
    characters_per_token: float = _CHARACTERS_PER_TOKEN,
) -> EvalMemory:
    """Bytes that an evaluation of these questions takes; every layer counts as above the hook, which the SAE names."""
    size = BYTES[spec.dtype]
    characters = sum(_characters(question, spec.prompt) for side in questions.values() for question in side)
    gradients = 2 if any(setting.selector.built.needs_gradients for setting in spec.settings) else 1
    prompts = characters / characters_per_token * shape.d_model * size
    corpora = 2 * gradients * spec.max_corpus_tokens * shape.d_model * size
    # Grouped-query models have fewer heads of keys and values than of queries, so this is an upper bound.
    keys_and_values = 2 * PAST_PER_TOKEN * spec.batch_tokens * shape.n_heads * shape.d_head * shape.n_layers * size
    hidden = spec.batch_tokens * (4 * shape.d_model + 2 * shape.d_mlp) * size
    logits = spec.batch_tokens / 4 * shape.d_vocab * (size + 4)
    return EvalMemory(
        weights=shape.n_parameters * size,
        questions=prompts,
        corpora=corpora,
        in_files=max(0.0, prompts + corpora - spec.cache_gib * _GIB),
        at_once=keys_and_values + hidden + logits,
    )


def plan_evaluation(spec: EvalSpec, inputs: EvalInputs) -> Plan:
    """Describe an evaluation; loads no weights and needs no device."""
    questions = {
        "forget": [question for split in inputs.forget_questions.values() for question in split],
        "retain": [question for split in inputs.retain_questions.values() for question in split],
        "near": inputs.near_questions,
    }
    counts = ", ".join(f"{len(side):,} {name}" for name, side in questions.items() if side)
    n_prompts = sum(_n_prompts(question, spec.prompt) for side in questions.values() for question in side)
    lines = {
        "questions": f"{counts}; at most {n_prompts:,} prompts, {spec.prompt.style} style"
        f"{'' if spec.prompt.style == 'letter' else ', more of a model whose options cannot share a stem'}",
        "corpora": f"{spec.max_corpus_tokens:,} tokens each at most, {spec.corpus_reading}, "
        f"contexts of {spec.context_size:,}",
        "settings": f"{len(spec.settings):,}: {', '.join(spec.selectors)} x {len(spec.n_features)} n_features x "
        f"{', '.join(spec.interventions)}",
        "model": f"{spec.model}, {spec.dtype}, on {spec.device}",
    }
    try:
        memory = estimate_memory(spec, model_shape(spec.model), questions)
    except UserError as error:
        lines["memory"] = f"not known: {error}"
    else:
        lines |= {
            "weights": _gib(memory.weights),
            "at once": f"{_gib(memory.at_once)} on {spec.device} at most, were all layers above the hook",
            "host memory": f"{_gib(memory.host)}: questions {_gib(memory.questions)}, corpora {_gib(memory.corpora)}",
            "in files": f"{_gib(memory.in_files)} beyond cache_gib {spec.cache_gib:g}",
        }
    width = max(map(len, lines))
    return Plan("\n".join(f"{name.ljust(width)}  {text}" for name, text in lines.items()))


def _n_prompts(question: Question, prompt: PromptSpec) -> int:
    return len(question.stems) * prompt.n_orders


def _characters(question: Question, prompt: PromptSpec) -> int:
    """Characters of a question in its first phrasing, its options among them."""
    return len(prompt.text) + len(question.stems[0]) + sum(map(len, question.options))


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / _GIB:.2f} GiB"
