"""What a model says with an edit and without, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens_contrastive.data.batching import check_fits_context, encode_prompt
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.forget_edit.apply import apply_forget_edit
from sae_lens_contrastive.forget_edit.edit import ForgetEdit
from sae_lens_contrastive.models import HookedBridge, greedy_continuations


@dataclass(frozen=True)
class SideBySide:
    """One prompt, continued greedily."""

    prompt: str
    """What was put."""
    unedited: str
    """What the model says."""
    edited: str
    """What it says under the edit."""
    changed: bool
    """Whether the edit changed any token of the prompt or the continuation; otherwise both are the same bit for bit."""


def side_by_side(
    model: HookedBridge,
    sae: Any,
    edit: ForgetEdit,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 40,
    chat: bool = False,
) -> Iterator[SideBySide]:
    """Continue each prompt with the edit and without, up to `max_new_tokens` tokens; `chat` puts it as a user's turn.

    Raises `UserError` for another SAE than the edit's, a chat without a template, or a prompt beyond the context.
    """
    asked = [_tokens(model.tokenizer, prompt, chat) for prompt in prompts]
    for tokens in asked:
        check_fits_context(len(tokens) + max_new_tokens, model, "A prompt with its continuation", "Shorten it.")
    for prompt, tokens in zip(prompts, asked, strict=True):
        unedited = _said(model, tokens, max_new_tokens)
        with apply_forget_edit(model, sae, edit) as applied:
            edited = _said(model, tokens, max_new_tokens)
        yield SideBySide(prompt, unedited, edited, bool(applied.changed.any()))


def _tokens(tokenizer: Any, prompt: str, chat: bool) -> list[int]:
    if not chat:
        return encode_prompt(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise UserError("The tokenizer of this model has no chat template. Leave the chat out.")
    turns = [{"role": "user", "content": prompt}]
    return encode_prompt(tokenizer, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _said(model: HookedBridge, tokens: list[int], max_new_tokens: int) -> str:
    (said,) = greedy_continuations(model, [tokens], max_new_tokens)
    return model.tokenizer.decode(said)
