"""How fast forgotten knowledge returns when the model is fine-tuned on a little of it with the edit in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.batching import batches_by_length
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.unlearning.corpus import Contexts
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel, SaeEdit, WeightEdit
from sae_lens_contrastive.unlearning.not_finite import check_finite
from sae_lens_contrastive.unlearning.option_scores import is_right, option_scores
from sae_lens_contrastive.unlearning.prompts import Prompt, PromptSpec, PromptWriter, Spot
from sae_lens_contrastive.unlearning.runners import Edited, Unedited, runner_for


class RelearningOptions(StrictModel):
    """The fine-tuning."""

    material: Literal["questions", "text"] = "questions"
    """What the model is trained on: the answers to `select` forget questions, or contexts of the forget corpus, of
    which documents that name a held-out entity are no part."""
    n_examples: PositiveInt = 8
    """Questions or contexts, chosen at random."""
    n_steps: PositiveInt = 32
    """Steps; each takes all examples."""
    lr: PositiveFloat = 2e-5
    """Learning rate of AdamW, whose steps add up in float32 whatever the model's precision."""


class RelearningResult(StrictModel):
    """Accuracy on held-out forget questions while the model relearns others, under the edit throughout."""

    n_examples: int
    """Questions or contexts trained on."""
    n_questions: int
    """Held-out questions asked."""
    unedited_accuracy: float
    """Share that the model answers right without edit and training."""
    steps: list[int]
    """Training steps taken: 0, powers of two, and the last."""
    accuracy: list[float]
    """Share of the held-out questions answered right after each of these numbers of steps."""
    loss: list[float]
    """Loss on the examples then, in nats: mean of -log p(answer | question), or mean next-token loss of the texts."""


def relearning(
    model: Any,
    hook_name: str,
    edit: SaeEdit | WeightEdit,
    examples: Sequence[Question] | Contexts,
    questions: Sequence[Question],
    prompt: PromptSpec,
    options: RelearningOptions,
    *,
    seed: int,
    batch_tokens: int = 2048,
    title: str = "relearning",
) -> RelearningResult:
    """Train all weights on a few of `examples` by AdamW and follow the accuracy on `questions`.

    `examples` are questions or contexts of text. An edit of the residual stream stays in place; one of weights is where
    the training begins. Questions are put, and answers scored, as in the evaluation: first phrasing, published order.
    The model's weights are afterwards what they were before, also after an error or an interruption.
    """
    trained = _examples(model, examples, prompt, options.n_examples, seed)
    exam = _Exam(model, hook_name, questions, prompt, batch_tokens)
    unedited = exam.accuracy(EditedModel(model, hook_name))
    edited = EditedModel(model, hook_name, edit)
    steps, accuracy, losses = _reported_steps(options.n_steps), [], []
    with trainable_weights(model) as weights, tqdm(total=options.n_steps, desc=title, unit="step") as progress:
        edited = edited.applied()
        # In half precision most steps of this size would be rounded away.
        masters = [weight if weight.dtype == torch.float32 else weight.detach().float() for weight in weights]
        optimizer = torch.optim.AdamW(masters, lr=options.lr, weight_decay=0.0)
        for step in range(options.n_steps + 1):
            loss, gradients = _loss(edited, trained, weights, batch_tokens)
            check_finite((loss,), f"The loss of relearning at step {step}")
            if step in steps:
                accuracy.append(exam.accuracy(edited))
                losses.append(loss)
            if step < options.n_steps:
                _take_step(optimizer, weights, masters, gradients)
                progress.update()
    return RelearningResult(
        n_examples=len(trained),
        n_questions=len(questions),
        unedited_accuracy=unedited,
        steps=steps,
        accuracy=accuracy,
        loss=losses,
    )


@contextmanager
def trainable_weights(model: Any) -> Iterator[list[torch.nn.Parameter]]:
    """Weights that may change inside the block and are exactly as before after it, however it ends."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    flags = [weight.requires_grad for weight in weights]
    gradients = [weight.grad for weight in weights]
    kept = [weight.detach().to("cpu", copy=True) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
            weight.grad = None
        yield weights
    finally:
        with torch.no_grad():
            for weight, value, flag, gradient in zip(weights, kept, flags, gradients, strict=True):
                weight.copy_(value)
                weight.requires_grad_(flag)
                weight.grad = gradient


@torch.no_grad()
def _take_step(
    optimizer: torch.optim.Optimizer,
    weights: Sequence[torch.nn.Parameter],
    masters: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> None:
    for master, gradient in zip(masters, gradients, strict=True):
        master.grad = gradient.to(master.dtype)
    optimizer.step()
    for weight, master in zip(weights, masters, strict=True):
        if weight is not master:
            weight.copy_(master)


def _reported_steps(n_steps: int) -> list[int]:
    return sorted({0, *(2**k for k in range(n_steps.bit_length())), n_steps})


@dataclass(frozen=True)
class _Example:
    """A sequence with what is learnt of it."""

    prompt: Prompt
    """Its tokens, and as spots those that are learnt."""
    pooling: str
    """How the log-probabilities of the spots become one: sum, max or mean."""

    @property
    def n_asked(self) -> int:
        """Tokens that have a say in a gate: what is asked, or the whole text."""
        return len(self.prompt.tokens) if self.pooling == "mean" else self.prompt.n_asked


def _examples(
    model: Any, examples: Sequence[Question] | Contexts, spec: PromptSpec, n_examples: int, seed: int
) -> list[_Example]:
    rng = np.random.default_rng(seed)
    if isinstance(examples, Contexts):
        chosen = rng.permutation(len(examples.tokens))[:n_examples]
        return [_Example(_text_prompt(examples, i), "mean") for i in chosen]
    questions = [examples[i] for i in rng.permutation(len(examples))[:n_examples]]
    prompts = _answers_only(questions, _plain_prompts(model, questions, spec))
    return [_Example(prompt, spec.pooling) for prompt in prompts]


def _text_prompt(contexts: Contexts, index: int) -> Prompt:
    tokens = contexts.tokens[index]
    spots = [Spot(i - 1, tokens[i], 0) for i, counts in enumerate(contexts.counted[index]) if counts]
    return Prompt(question=index, phrasing=0, tokens=tuple(tokens), spots=spots)


def _plain_prompts(
    model: Any, questions: Sequence[Question], spec: PromptSpec, *, packed: bool = False
) -> list[Prompt]:
    """First phrasing in the published order, one sequence per distinct ending, or all endings packed into one."""
    first_phrasings = [replace(question, stems=question.stems[:1]) for question in questions]
    prompts = PromptWriter(model.tokenizer, spec, packed=packed).prompts(first_phrasings)
    return [prompt for prompt in prompts if prompt.order == 0]


def _answers_only(questions: Sequence[Question], prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that hold the right answers, without what is scored for other options."""
    answers = []
    for prompt in prompts:
        right = questions[prompt.question].answer_index
        if spots := [spot for spot in prompt.spots if spot.option == right]:
            answers.append(replace(prompt, spots=spots))
    return answers


def _loss(
    edited: EditedModel, examples: Sequence[_Example], weights: Sequence[torch.nn.Parameter], batch_tokens: int
) -> tuple[float, list[Tensor]]:
    """Mean over examples of the loss, and its gradients."""
    total, gradients = 0.0, [torch.zeros_like(weight) for weight in weights]
    for batch in batches_by_length([len(each.prompt.tokens) for each in examples], batch_tokens):
        chosen = [examples[i] for i in batch]
        values = edited.spot_log_probs([each.prompt for each in chosen], [each.n_asked for each in chosen])
        pooled = [_pooled(value, each.pooling) for each, value in zip(chosen, values, strict=True)]
        loss = -torch.stack(pooled).sum() / len(examples)
        total += loss.item()
        # Not backward: that would leave gradients on the SAE's own weights.
        parts = torch.autograd.grad(loss, weights, allow_unused=True)
        for gradient, part in zip(gradients, parts, strict=True):
            if part is not None:
                gradient += part
    return total, gradients


class _Exam:
    """Questions that are put again and again to a model whose weights change; their options share a trunk."""

    def __init__(
        self, model: Any, hook_name: str, questions: Sequence[Question], spec: PromptSpec, batch_tokens: int
    ) -> None:
        self._runner = runner_for(model, hook_name)
        self._questions = questions
        self._prompts = _plain_prompts(model, questions, spec, packed=self._runner.packed)
        self._pooling: Literal["sum", "max"] = spec.pooling
        self._batch_tokens = batch_tokens

    @torch.no_grad()
    def accuracy(self, edited: EditedModel) -> float:
        """Share of the questions that are answered right."""
        log_probs: dict[int, Tensor] = {}
        for batch in batches_by_length([len(prompt.tokens) for prompt in self._prompts], self._batch_tokens):
            log_probs.update(zip(batch, self._log_probs(edited, [self._prompts[i] for i in batch]), strict=True))
        found = [log_probs[i] for i in range(len(self._prompts))]
        scores = option_scores(self._questions, self._prompts, found, self._pooling)
        return sum(is_right(self._questions[i], score) for i, score in scores.items()) / len(self._questions)

    def _log_probs(self, edited: EditedModel, prompts: Sequence[Prompt]) -> list[Float[Tensor, " n_spots"]]:
        before = self._runner.residuals(prompts)
        batch = edited.batch([prompt.tokens for prompt in prompts], [prompt.n_asked for prompt in prompts])
        after = edited.edited(torch.nn.utils.rnn.pad_sequence(before, batch_first=True), batch)
        unedited = [Unedited(prompt, residual) for prompt, residual in zip(prompts, before, strict=True)]
        rows = [Edited(i, after[i, : len(residual)]) for i, residual in enumerate(before)]
        return next(iter(self._runner.log_probs(unedited, [rows])))


def _pooled(values: Float[Tensor, " n_spots"], pooling: str) -> Float[Tensor, ""]:
    return {"sum": values.sum, "max": values.max, "mean": values.mean}[pooling]()
