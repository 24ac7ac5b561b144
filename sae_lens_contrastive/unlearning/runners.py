"""Prompts through a model: once as they are, and again above the hook where the residual stream was edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.data.batching import pad_right
from sae_lens_contrastive.models import (
    KeyValues,
    ModelAboveHook,
    PackedModel,
    PackedRows,
    can_pack,
    residual_at_hook,
)
from sae_lens_contrastive.unlearning.prompts import Prompt, Spot


@dataclass(frozen=True)
class Unedited:
    """A prompt and its residual stream, of which the tokens before `start` stay as they are."""

    prompt: Prompt
    """The prompt."""
    residual: Float[Tensor, "pos d_model"]
    """Its residual stream at the hook."""
    start: int = 0
    """First token that an edit may change; the tokens before it lie on the trunk."""

    @property
    def spots(self) -> list[Spot]:
        """Spots from `start` on."""
        return [spot for spot in self.prompt.spots if spot.position >= self.start]


@dataclass(frozen=True)
class Edited:
    """A prompt after an edit."""

    unedited: int
    """Index of the prompt among those given with it."""
    residual: Float[Tensor, "rest d_model"]
    """The residual stream from `start` on."""


class Runner(Protocol):
    """Runs prompts through the two halves of a model."""

    packed: bool
    """Whether it takes prompts with branches."""

    def residuals(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "pos d_model"]]:
        """Residual stream of each prompt at the hook."""
        ...

    def log_probs(
        self, unedited: Sequence[Unedited], batches: Iterable[Sequence[Edited]]
    ) -> Iterator[list[Float[Tensor, " n_spots"]]]:
        """For each batch, the log-probabilities in nats of each row's spots from its `start` on."""
        ...


def runner_for(model: Any, hook_name: str) -> Runner:
    """The faster of the two runners that gives a model's own answers."""
    return PackedRunner(model, hook_name) if can_pack(model, hook_name) else PlainRunner(model, hook_name)


class PackedRunner:
    """Options share their trunk, edits share what comes before the first edited token."""

    packed = True

    def __init__(self, model: Any, hook_name: str) -> None:
        self.model = PackedModel(model, hook_name)
        self.device = model.cfg.device

    def residuals(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "pos d_model"]]:
        """Residual stream of each prompt at the hook."""
        rows = self._rows(prompts, [slice(None)] * len(prompts))
        residual = self.model.residual(rows)
        return [residual[row, : len(prompt.tokens)] for row, prompt in enumerate(prompts)]

    def log_probs(
        self, unedited: Sequence[Unedited], batches: Iterable[Sequence[Edited]]
    ) -> Iterator[list[Float[Tensor, " n_spots"]]]:
        """For each batch, the log-probabilities in nats of each row's spots from its `start` on."""
        past = self._past(unedited) if any(each.start for each in unedited) else None
        for rows in batches:
            index = torch.tensor([row.unedited for row in rows], device=self.device)
            chosen = [unedited[row.unedited] for row in rows]
            after = self._rows([each.prompt for each in chosen], [slice(each.start, None) for each in chosen])
            places = [_places(each) for each in chosen]
            width = max(len(each) for each in places)
            wanted = torch.tensor([[*each, *[-1] * (width - len(each))] for each in places], device=self.device)
            residual = _padded([row.residual for row in rows], self.device)
            logits = self.model.logits(after, residual, wanted, past if past is None else past.rows(index))
            yield _spot_log_probs(logits, chosen, places)

    def _past(self, unedited: Sequence[Unedited]) -> KeyValues:
        rows = self._rows([each.prompt for each in unedited], [slice(each.start) for each in unedited])
        return self.model.keys_and_values(
            rows, _padded([each.residual[: each.start] for each in unedited], self.device)
        )

    def _rows(self, prompts: Sequence[Prompt], parts: Sequence[slice]) -> PackedRows:
        cut = list(zip(prompts, parts, strict=True))
        return PackedRows.of(
            [prompt.tokens[part] for prompt, part in cut],
            [prompt.positions[part] for prompt, part in cut],
            [prompt.branch[part] for prompt, part in cut],
            self.device,
        )


class PlainRunner:
    """Every prompt is a sequence of its own and runs whole above the hook, for models that take no mask of ours."""

    packed = False

    def __init__(self, model: Any, hook_name: str) -> None:
        self.above = ModelAboveHook(model, hook_name)
        self.model = model

    @torch.no_grad()
    def residuals(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "pos d_model"]]:
        """Residual stream of each prompt at the hook."""
        tokens = pad_right([prompt.tokens for prompt in prompts], self.model)
        residual = residual_at_hook(self.model, self.above.hook_name, tokens)
        return [residual[row, : len(prompt.tokens)] for row, prompt in enumerate(prompts)]

    def log_probs(
        self, unedited: Sequence[Unedited], batches: Iterable[Sequence[Edited]]
    ) -> Iterator[list[Float[Tensor, " n_spots"]]]:
        """For each batch, the log-probabilities in nats of each row's spots from its `start` on."""
        for rows in batches:
            chosen = [unedited[row.unedited] for row in rows]
            tokens = pad_right([each.prompt.tokens for each in chosen], self.model)
            whole = [
                torch.cat([each.residual[: each.start].to(row.residual), row.residual])
                for each, row in zip(chosen, rows, strict=True)
            ]
            places = [_places(each) for each in chosen]
            wanted = torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device)
            for row, (each, local) in enumerate(zip(chosen, places, strict=True)):
                wanted[row, [each.start + place for place in local]] = True
            with torch.no_grad():
                logits = self.above(tokens, _padded(whole, tokens.device), wanted)
            yield _spot_log_probs(logits, chosen, places)


def _places(unedited: Unedited) -> list[int]:
    """Places of the spots from `start` on, counted from there, each once and in order."""
    return sorted({spot.position - unedited.start for spot in unedited.spots})


def _padded(residuals: Sequence[Tensor], device: torch.device | str) -> Float[Tensor, "batch pos d_model"]:
    return torch.nn.utils.rnn.pad_sequence([residual.to(device) for residual in residuals], batch_first=True)


def _spot_log_probs(
    logits: Float[Tensor, "n_logits d_vocab"], rows: Sequence[Unedited], places: Sequence[Sequence[int]]
) -> list[Float[Tensor, " n_spots"]]:
    """Log-probabilities of the spots; logits come row by row, place by place."""
    which, targets, counts, first = [], [], [], 0
    for row, local in zip(rows, places, strict=True):
        index = {place: first + i for i, place in enumerate(local)}
        which += [index[spot.position - row.start] for spot in row.spots]
        targets += [spot.token for spot in row.spots]
        counts.append(len(row.spots))
        first += len(local)
    at = torch.tensor(which, device=logits.device)
    logits = logits.float()
    values = logits[at, torch.tensor(targets, device=logits.device)] - logits.logsumexp(dim=-1)[at]
    return list(values.cpu().split(counts))
