"""What the model answers, before and under an edit at the hook, without running twice what the edit does not
change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.interventions import Intervention, check_editable, decoder_rows, feature_acts
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook
from sae_lens_contrastive.unlearning.batching import (
    batches_by_length,
    check_fits_context,
    editable_tokens,
    pad_right,
)
from sae_lens_contrastive.unlearning.prompts import Prompt, PromptSpec, PromptWriter


class QuestionEvaluator:
    """Answers to the questions that the unedited model knows: those it answers right under every phrasing.

    The model below the hook runs once, here. The residual stream of the first phrasing of the known questions
    stays in memory; an edit re-runs only the layers above the hook, only the prompts that it changes, and
    unembeds only the scored positions.
    """

    def __init__(
        self,
        model: Any,
        hook_name: str,
        questions: Sequence[Question],
        prompt: PromptSpec,
        *,
        batch_tokens: int = 2048,
        title: str = "questions",
    ) -> None:
        self.above = ModelAboveHook(model, hook_name)
        self.batch_tokens = batch_tokens
        prompts = PromptWriter(model.tokenizer, prompt).prompts(questions)
        longest = max((len(p.tokens) for p in prompts), default=0)
        check_fits_context(longest, model, "A question", "Shorten prompt.template or leave the question out.")
        log_probs, residuals = self._read_unedited(prompts, title)
        knows = [
            all(_is_right(question, score) for score in by_phrasing.values())
            for question, by_phrasing in zip(questions, _option_scores(questions, prompts, log_probs), strict=True)
        ]
        self.asked = len(questions)
        """Number of questions put to the model."""
        self.known = [question for question, known in zip(questions, knows, strict=True) if known]
        """Questions that the unedited model answers right under every phrasing."""
        new_index = {i: n for n, i in enumerate(i for i, known in enumerate(knows) if known)}
        kept = [i for i, p in enumerate(prompts) if p.phrasing == 0 and p.question in new_index]
        self.prompts = [Prompt(new_index[prompts[i].question], 0, prompts[i].tokens, prompts[i].spots) for i in kept]
        self._unedited = [log_probs[i] for i in kept]
        self._residuals = [residuals[i] for i in kept]
        special = set(model.tokenizer.all_special_ids)
        device = model.cfg.device
        self._editable = [torch.tensor(editable_tokens(p.tokens, special), device=device) for p in self.prompts]
        counts = torch.tensor([int(mask.sum()) for mask in self._editable], dtype=torch.long, device=device)
        self.prompt_of_token: Int[Tensor, " n_tokens"] = torch.repeat_interleave(
            torch.arange(len(kept), device=device), counts
        )
        """Prompt of each editable token, in the order of `acts`."""

    def acts(self, sae: Any, features: Sequence[int]) -> Float[Tensor, "n_tokens n_selected"]:
        """Activations of chosen features on the editable tokens of all prompts; `UserError` if the SAE cannot
        be edited."""
        check_editable(sae)
        if not self.prompts:
            return torch.zeros((0, len(features)), device=self.prompt_of_token.device)
        pairs = zip(self._residuals, self._editable, strict=True)
        return feature_acts(sae, torch.cat([residual[editable] for residual, editable in pairs]), features)

    def answers(
        self,
        sae: Any,
        features: Sequence[int],
        intervention: Intervention,
        *,
        acts: Float[Tensor, "n_tokens n_selected"] | None = None,
    ) -> Bool[Tensor, " n_known"]:
        """Which known questions are still answered right, by their first phrasing, when the features are edited.

        `acts` are the features' activations where they are at hand.
        """
        scores = self.option_scores(sae, features, intervention, acts=acts)
        right = [_is_right(question, score) for question, score in zip(self.known, scores, strict=True)]
        return torch.tensor(right, dtype=torch.bool)

    def option_scores(
        self,
        sae: Any,
        features: Sequence[int],
        intervention: Intervention,
        *,
        acts: Float[Tensor, "n_tokens n_selected"] | None = None,
        only_changed: bool = True,
    ) -> list[list[float]]:
        """Log-probability of every option of every known question, in nats, when the features are edited.

        `only_changed=False` runs every prompt again; the scores are the same.
        """
        acts = self.acts(sae, features) if acts is None else acts
        change = intervention(acts, self.prompt_of_token) - acts
        changed = set(self.prompt_of_token[(change != 0).any(dim=1)].tolist())
        rerun = [i for i in range(len(self.prompts)) if i in changed or not only_changed]
        log_probs = list(self._unedited)
        if rerun:
            delta = change @ decoder_rows(sae, features).to(change.device)
            deltas = delta.split(self.prompt_of_token.bincount(minlength=len(self.prompts)).tolist())
            for batch in batches_by_length([len(self.prompts[i].tokens) for i in rerun], self.batch_tokens):
                indices = [rerun[i] for i in batch]
                for i, result in zip(indices, self._rerun(indices, deltas), strict=True):
                    log_probs[i] = result
        return [by_phrasing[0] for by_phrasing in _option_scores(self.known, self.prompts, log_probs)]

    @torch.no_grad()
    def _rerun(self, indices: Sequence[int], deltas: Sequence[Tensor]) -> list[Tensor]:
        residuals = []
        for i in indices:
            residual = self._residuals[i].to(torch.float32, copy=True)
            residual[self._editable[i]] += deltas[i]
            residuals.append(residual.to(self._residuals[i].dtype))
        return self._log_probs([self.prompts[i] for i in indices], residuals)

    @torch.no_grad()
    def _read_unedited(self, prompts: Sequence[Prompt], title: str) -> tuple[list[Tensor], dict[int, Tensor]]:
        log_probs: list[Tensor] = [torch.empty(0)] * len(prompts)
        residuals: dict[int, Tensor] = {}
        model, hook_name = self.above.model, self.above.hook_name
        with tqdm(total=len(prompts), desc=f"unedited answers, {title}", unit="prompt") as progress:
            for batch in batches_by_length([len(p.tokens) for p in prompts], self.batch_tokens):
                tokens = pad_right([prompts[i].tokens for i in batch], model)
                residual = residual_at_hook(model, hook_name, tokens)
                rows = [residual[row, : len(prompts[i].tokens)] for row, i in enumerate(batch)]
                results = self._log_probs([prompts[i] for i in batch], rows)
                for i, row, result in zip(batch, rows, results, strict=True):
                    log_probs[i] = result
                    if prompts[i].phrasing == 0:
                        # A copy: a view would keep the whole padded batch alive.
                        residuals[i] = row.clone()
                progress.update(len(batch))
        return log_probs, residuals

    def _log_probs(
        self, prompts: Sequence[Prompt], residuals: Sequence[Float[Tensor, "pos d_model"]]
    ) -> list[Float[Tensor, " n_spots"]]:
        tokens = pad_right([p.tokens for p in prompts], self.above.model)
        residual = torch.nn.utils.rnn.pad_sequence(list(residuals), batch_first=True)
        positions = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
        spots = [(row, spot) for row, prompt in enumerate(prompts) for spot in prompt.spots]
        where = torch.tensor([(row, spot.position) for row, spot in spots], device=tokens.device).T
        positions[where[0], where[1]] = True
        logits = self.above(tokens, residual, positions).float()
        # Scored positions come back row by row; the running count of the mask is each one's place among them.
        place = (positions.flatten().cumsum(0) - 1).view(tokens.shape)[where[0], where[1]]
        targets = torch.tensor([spot.token for _, spot in spots], device=tokens.device)
        results = logits[place, targets] - logits.logsumexp(dim=-1)[place]
        return list(results.cpu().split([len(p.spots) for p in prompts]))


def _option_scores(
    questions: Sequence[Question], prompts: Sequence[Prompt], log_probs: Sequence[Float[Tensor, " n_spots"]]
) -> list[dict[int, list[float]]]:
    """For each question, the summed log-probabilities of its options under each phrasing that has prompts."""
    scores: list[dict[int, list[float]]] = [{} for _ in questions]
    for prompt, values in zip(prompts, log_probs, strict=True):
        n_options = len(questions[prompt.question].options)
        score = scores[prompt.question].setdefault(prompt.phrasing, [0.0] * n_options)
        for spot, value in zip(prompt.spots, values.tolist(), strict=True):
            score[spot.option] += value
    return scores


def _is_right(question: Question, score: Sequence[float]) -> bool:
    return max(range(len(score)), key=score.__getitem__) == question.answer_index
