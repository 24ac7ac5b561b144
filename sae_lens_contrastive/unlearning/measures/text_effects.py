"""What an edit does to running text: loss, and how far next-token predictions move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.data.batching import batches_by_length
from sae_lens_contrastive.models import ModelAboveHook, residual_at_hook
from sae_lens_contrastive.unlearning.corpus import Contexts, mask_right, positions_before
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel, SaeEdit, TokenBatch, WeightEdit
from sae_lens_contrastive.unlearning.not_finite import check_finite

_ROWS_AT_ONCE = 256


class TextEffectsOptions(StrictModel):
    """How much text is read."""

    max_tokens: PositiveInt = 5000
    """Predicted tokens of either corpus."""


class TextEffect(StrictModel):
    """One corpus without and with the edit."""

    n_tokens: int
    """Number of predicted tokens."""
    loss: float
    """Mean of -log p(token | tokens before it) of the unedited model, in nats per token."""
    edited_loss: float
    """The same under the edit."""
    kl: float
    """Mean over the same predictions of KL(p_model || p_edited), in nats per token."""


class TextEffectsResult(StrictModel):
    """What an edit does to text of either side."""

    forget: TextEffect
    """Forget text."""
    retain: TextEffect
    """Retain text."""


def text_effects(
    model: Any,
    hook_name: str,
    edit: SaeEdit | WeightEdit,
    forget: Contexts,
    retain: Contexts,
    options: TextEffectsOptions,
    *,
    batch_tokens: int = 2048,
) -> TextEffectsResult:
    """Loss and next-token KL on the first `max_tokens` tokens of both corpora that count.

    Each context is a prompt to a gate. Nothing but the contexts that the edit changes runs twice above the hook.
    """
    edited = EditedModel(model, hook_name, edit)
    effects = {
        side: _effect(edited, contexts.first(options.max_tokens), batch_tokens, f"{side} corpus")
        for side, contexts in (("forget", forget), ("retain", retain))
    }
    return TextEffectsResult(**effects)


@torch.no_grad()
def _effect(edited: EditedModel, contexts: Contexts, batch_tokens: int, title: str) -> TextEffect:
    sums = torch.zeros(3, dtype=torch.float64)
    lengths = [len(context) for context in contexts.tokens]
    with tqdm(total=contexts.n_tokens, desc=f"effect on {title}", unit="tok", unit_scale=True) as progress:
        for rows in batches_by_length(lengths, batch_tokens):
            batch = edited.batch([contexts.tokens[i] for i in rows], [lengths[i] for i in rows])
            counted = mask_right([contexts.counted[i] for i in rows], batch.tokens)
            # A gate is fitted on the tokens that count.
            sums += _batch_sums(edited, replace(batch, counted=counted))
            progress.update(int(counted.sum()))
    loss, edited_loss, kl = (sums / contexts.n_tokens).tolist()
    check_finite((loss, edited_loss, kl), f"The effect on the {title}")
    return TextEffect(n_tokens=contexts.n_tokens, loss=loss, edited_loss=edited_loss, kl=kl)


def _batch_sums(edited: EditedModel, batch: TokenBatch) -> Float[Tensor, " 3"]:
    """Sums of loss, edited loss and KL over the predictions of counted tokens."""
    counted = batch.counted
    if isinstance(edited.edit, WeightEdit):
        unedited, wanted = EditedModel(edited.model, edited.hook_name), positions_before(counted)
        return _sums(unedited.logits(batch, wanted), edited.logits(batch, wanted), batch.tokens[counted])
    above = ModelAboveHook(edited.model, edited.hook_name)
    residual = residual_at_hook(edited.model, edited.hook_name, batch.tokens)
    after = edited.edited(residual, batch)
    changed = (after != residual).flatten(1).any(dim=1)
    sums = torch.zeros(3, dtype=torch.float64)
    for rows, is_changed in ((changed, True), (~changed, False)):
        if not bool(counted[rows].any()):
            continue
        tokens, wanted, targets = batch.tokens[rows], positions_before(counted[rows]), batch.tokens[rows][counted[rows]]
        logits = above(tokens, residual[rows], wanted)
        edited_logits = above(tokens, after[rows], wanted) if is_changed else logits
        sums += _sums(logits, edited_logits, targets)
    return sums


def _sums(
    logits: Float[Tensor, "n d_vocab"], edited_logits: Float[Tensor, "n d_vocab"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " 3"]:
    sums = torch.zeros(3, dtype=torch.float64)
    # In float32 a few rows at a time: a vocabulary can be a quarter of a million wide.
    parts = (logits.split(_ROWS_AT_ONCE), edited_logits.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE))
    for before, after, target in zip(*parts, strict=True):
        log_p, log_q = before.float().log_softmax(-1), after.float().log_softmax(-1)
        at_target = target[:, None]
        sums += torch.stack(
            [
                -log_p.gather(1, at_target).double().sum(),
                -log_q.gather(1, at_target).double().sum(),
                (log_p.exp() * (log_p - log_q)).double().sum(),
            ]
        ).cpu()
    return sums
