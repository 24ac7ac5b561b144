"""Prompts with their residual stream at a hook, answered again under edits; what an edit leaves alone runs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.data.batching import batches_by_length, editable_tokens
from sae_lens_contrastive.interventions import Intervention, TokenTable, check_editable, decoder_rows, feature_acts
from sae_lens_contrastive.unlearning.prompts import Prompt
from sae_lens_contrastive.unlearning.runners import Edited, Runner, Unedited
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget

_ENCODE_TOKENS = 4096
PAST_PER_TOKEN = 4
"""Tokens of a batch, those that precede its rows included, for each token that runs."""


@dataclass(frozen=True)
class Edit:
    """Features, and what is done to them."""

    features: tuple[int, ...]
    """Indices into the dictionary."""
    intervention: Intervention
    """New activations from the present ones."""


@dataclass(frozen=True)
class Reading:
    """What the unedited model makes of prompts, one after another."""

    residuals: Float[Tensor, "n_tokens d_model"]
    """Residual stream at the hook, in host memory."""
    log_probs: Float[Tensor, " n_spots"]
    """Log-probabilities of the spots, in nats."""

    def residuals_of(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "n_tokens d_model"]]:
        """Residual stream of each of the prompts that were read."""
        return list(self.residuals.split([len(prompt.tokens) for prompt in prompts]))

    def log_probs_of(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, " n_spots"]]:
        """Log-probabilities of the spots of each of the prompts that were read, in nats."""
        return list(self.log_probs.split([len(prompt.spots) for prompt in prompts]))


class PromptSet:
    """Prompts, their residual stream and what the unedited model answers.

    Under an edit only prompts run again in which it changes a token, only above the hook, and of the tokens before the
    first changed one only once for all edits.
    """

    def __init__(
        self,
        runner: Runner,
        prompts: Sequence[Prompt],
        reading: Reading,
        *,
        special_tokens: set[int],
        edit_special_tokens: bool,
        batch_tokens: int,
    ) -> None:
        self.runner = runner
        self.batch_tokens = batch_tokens
        self.prompts = list(prompts)
        """The prompts."""
        self._special = special_tokens
        self._edit_special = edit_special_tokens
        self._residuals = reading.residuals_of(prompts)
        self.log_probs = reading.log_probs_of(prompts)
        """Unedited log-probabilities of the spots of each prompt, in nats."""
        self._index_tokens()

    def only(self, questions: Sequence[int]) -> PromptSet:
        """The prompts of some questions, which are numbered anew in the given order."""
        number = {question: i for i, question in enumerate(questions)}
        kept = [i for i, prompt in enumerate(self.prompts) if prompt.question in number]
        part = object.__new__(PromptSet)
        part.runner, part.batch_tokens = self.runner, self.batch_tokens
        part._special, part._edit_special = self._special, self._edit_special
        part.prompts = [replace(self.prompts[i], question=number[self.prompts[i].question]) for i in kept]
        part.log_probs = [self.log_probs[i] for i in kept]
        part._residuals = [self._residuals[i] for i in kept]
        part._index_tokens()
        return part

    def acts(self, sae: Any, features: Sequence[int]) -> Float[Tensor, "n_tokens n_selected"]:
        """Activations of chosen features on the editable tokens, prompt by prompt; `UserError` if the SAE cannot be
        edited."""
        check_editable(sae)
        parts = [torch.zeros((0, len(features)))]
        held: list[Tensor] = []
        for i, residual in enumerate(self._residuals):
            held.append(residual[self._places[i]])
            if sum(map(len, held)) >= _ENCODE_TOKENS or i + 1 == len(self._residuals):
                with torch.no_grad():
                    parts.append(feature_acts(sae, torch.cat(held).to(sae.W_dec.device), features).cpu())
                held = []
        return torch.cat(parts)

    def edited(
        self, sae: Any, edits: Sequence[Edit], progress: tqdm[Any] | None = None
    ) -> list[list[Float[Tensor, " n_spots"]]]:
        """Log-probabilities of the spots of each prompt under each edit, in nats."""
        features = sorted({feature for edit in edits for feature in edit.features})
        changes = self._changes(self.acts(sae, features), features, edits)
        found = [list(self.log_probs) for _ in edits]
        jobs = _jobs(changes)
        if progress is not None:
            progress.total = (progress.total or 0) + sum(map(len, jobs.values()))
        rows = decoder_rows(sae, features).cpu() if features else torch.zeros((0, 0))
        starts = {i: min(self.prompts[i].n_trunk, *(changes[e].first[i] for e in es)) for i, es in jobs.items()}
        for group in self._groups(starts):
            unedited = [Unedited(self.prompts[i], self._residuals[i], starts[i]) for i in group]
            batches = self._batches(group, unedited, jobs)
            edited = (
                [Edited(g, self._edited_residual(group[g], starts[group[g]], changes[e], rows)) for g, e in batch]
                for batch in batches
            )
            for batch, results in zip(batches, self.runner.log_probs(unedited, edited), strict=True):
                for (g, e), values in zip(batch, results, strict=True):
                    found[e][group[g]] = _from_start(self.log_probs[group[g]], unedited[g], values)
                if progress is not None:
                    progress.update(len(batch))
        return found

    def _changes(self, acts: Tensor, features: Sequence[int], edits: Sequence[Edit]) -> list[_Change]:
        column = {feature: i for i, feature in enumerate(features)}
        changes = []
        for edit in edits:
            columns = [column[feature] for feature in edit.features]
            change = edit.intervention(acts[:, columns], self.tokens) - acts[:, columns]
            changed = (change != 0).any(dim=1).nonzero().flatten()
            changes.append(_Change.of(changed, change[changed], columns, self.tokens.prompt, self._place_of_token))
        return changes

    def _edited_residual(self, prompt: int, start: int, change: _Change, rows: Tensor) -> Float[Tensor, "rest d_model"]:
        residual = self._residuals[prompt][start:]
        edited = residual.to(torch.float32, copy=True)
        tokens = slice(*change.range[prompt])
        edited.index_add_(0, change.place[tokens] - start, change.values[tokens] @ rows[change.columns])
        return edited.to(residual.dtype)

    def _groups(self, starts: dict[int, int]) -> Iterator[list[int]]:
        """Prompts whose tokens before the edit run together, those with most to run first."""
        group: list[int] = []
        for i in sorted(starts, key=lambda i: (starts[i] - len(self.prompts[i].tokens), -starts[i], i)):
            widest = max([starts[i], *(starts[j] for j in group)])
            if group and (len(group) + 1) * widest > self.batch_tokens:
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _batches(
        self, group: Sequence[int], unedited: Sequence[Unedited], jobs: dict[int, list[int]]
    ) -> list[list[tuple[int, int]]]:
        """(index in the group, index of the edit) of rows that run together."""
        past = max(each.start for each in unedited)
        batches: list[list[tuple[int, int]]] = []
        width = 0
        for g, i in enumerate(group):
            for e in jobs[i]:
                n = len(batches[-1]) + 1 if batches else 0
                fits = n * width <= self.batch_tokens and n * (past + width) <= PAST_PER_TOKEN * self.batch_tokens
                if not batches or not fits:
                    batches.append([])
                    # Longest first: the first row of a batch is its longest.
                    width = len(self.prompts[i].tokens) - unedited[g].start
                batches[-1].append((g, e))
        return batches

    def _index_tokens(self) -> None:
        """Number the editable tokens, prompt by prompt."""
        left_alone = set() if self._edit_special else self._special
        masks = [editable_tokens(prompt.tokens, left_alone) for prompt in self.prompts]
        self._places: list[Int[Tensor, " n"]] = [torch.tensor(mask).nonzero().flatten() for mask in masks]
        counts = torch.tensor([len(places) for places in self._places], dtype=torch.long)
        self._place_of_token = torch.cat([torch.zeros(0, dtype=torch.long), *self._places])
        prompt = torch.repeat_interleave(torch.arange(len(self.prompts)), counts)
        counts_in_gate = [
            place < each.n_asked and each.tokens[place] not in self._special
            for each, places in zip(self.prompts, self._places, strict=True)
            for place in places.tolist()
        ]
        self.tokens = TokenTable(prompt=prompt, counts=torch.tensor(counts_in_gate, dtype=torch.bool))
        """Prompt of each editable token, in the order of `acts`."""


def read_prompts(
    runner: Runner, prompts: Sequence[Prompt], batch_tokens: int, budget: TensorBudget, progress: tqdm[Any]
) -> Reading:
    """Run prompts through the unedited model, in tensors that the budget hands out."""
    found: dict[int, Tensor] = {}
    ends = list(accumulate(len(prompt.tokens) for prompt in prompts))
    store = torch.zeros((0, 0))
    for batch in batches_by_length([len(prompt.tokens) for prompt in prompts], batch_tokens):
        residuals, results = answer(runner, [prompts[i] for i in batch])
        for i, residual, values in zip(batch, residuals, results, strict=True):
            if not found:
                store = budget.allocate(ends[-1], residual.shape[1], dtype=residual.dtype)
            store[ends[i] - len(residual) : ends[i]] = residual.cpu()
            found[i] = values
        progress.update(len(batch))
    return Reading(store, torch.cat([torch.zeros(0), *(found[i] for i in range(len(prompts)))]))


def answer(runner: Runner, prompts: Sequence[Prompt]) -> tuple[list[Tensor], list[Tensor]]:
    """Residual stream of each prompt at the hook, and log-probabilities of its spots in nats; one batch."""
    residuals = runner.residuals(prompts)
    unedited = [Unedited(prompt, residual) for prompt, residual in zip(prompts, residuals, strict=True)]
    rows = [Edited(i, residual) for i, residual in enumerate(residuals)]
    return residuals, next(iter(runner.log_probs(unedited, [rows])))


@dataclass(frozen=True)
class _Change:
    """What an edit changes."""

    values: Float[Tensor, "n_changed n_selected"]
    place: Int[Tensor, " n_changed"]
    columns: list[int]
    first: dict[int, int]
    """First changed token of each prompt that has one."""
    range: dict[int, tuple[int, int]]
    """Where a prompt's changed tokens are."""

    @staticmethod
    def of(
        changed: Int[Tensor, " n_changed"],
        values: Float[Tensor, "n_changed n_selected"],
        columns: list[int],
        prompt_of_token: Int[Tensor, " n_tokens"],
        place_of_token: Int[Tensor, " n_tokens"],
    ) -> _Change:
        place = place_of_token[changed]
        prompts, begins, counts = np.unique(prompt_of_token[changed].numpy(), return_index=True, return_counts=True)
        parts = list(zip(prompts.tolist(), begins.tolist(), counts.tolist(), strict=True))
        return _Change(
            values,
            place,
            columns,
            first={prompt: int(place[begin]) for prompt, begin, _ in parts},
            range={prompt: (begin, begin + count) for prompt, begin, count in parts},
        )


def _jobs(changes: Sequence[_Change]) -> dict[int, list[int]]:
    """Edits that change each prompt that some edit changes."""
    jobs: dict[int, list[int]] = {}
    for e, change in enumerate(changes):
        for prompt in change.first:
            jobs.setdefault(prompt, []).append(e)
    return jobs


def _from_start(before: Tensor, unedited: Unedited, values: Tensor) -> Tensor:
    """Log-probabilities with those from `start` on replaced."""
    after = before.clone()
    after[[i for i, spot in enumerate(unedited.prompt.spots) if spot.position >= unedited.start]] = values
    return after
