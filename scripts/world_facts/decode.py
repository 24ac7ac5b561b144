"""Sample many chat answers at once with a plain decode loop."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token, and when to stop."""

    top_k: int = 50
    temperature: float = 0.7
    max_new_tokens: int = 180
    finished_share: float = 0.95
    compact_share: float = 0.33


def seed_for(seed: int, domain: str, batch: int) -> int:
    """A seed that depends on the batch alone, so that an interrupted run resumes to the same text."""
    digest = hashlib.sha256(f"{seed}/{domain}/{batch}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def chat_prompt(tokenizer: Any, ask: str, begin: str) -> str:
    """The model's chat template up to the opening words of the answer."""
    messages = [{"role": "user", "content": ask}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + begin


def _left_padded(tokenizer: Any, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), tokenizer.eos_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids, mask


@torch.inference_mode()
def sample_answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], seed: int, sampling: Sampling
) -> list[tuple[str, bool]]:
    """One continuation per prompt, and whether it ended by itself."""
    generator = torch.Generator().manual_seed(seed)
    ids, mask = _left_padded(tokenizer, prompts)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    rows = torch.arange(len(prompts))  # rows[i]: the prompt that batch row i still continues
    answers: list[list[int]] = [[] for _ in prompts]
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    step = ids
    for _ in range(sampling.max_new_tokens):
        logits = model(
            input_ids=step, attention_mask=mask, position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        ).logits[:, -1].float()  # fmt: skip
        values, indices = logits.topk(sampling.top_k, dim=-1)
        pick = torch.multinomial(torch.softmax(values / sampling.temperature, -1), 1, generator=generator)
        step = indices.gather(1, pick)
        for i, token in zip(rows.tolist(), step[:, 0].tolist(), strict=True):
            if not ended[i]:
                if token == tokenizer.eos_token_id:
                    ended[i] = True
                else:
                    answers[i].append(token)
        if ended.float().mean() >= sampling.finished_share:
            break
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        live = ~ended[rows]
        if live.float().mean() < 1 - sampling.compact_share:
            cache.batch_select_indices(live.nonzero()[:, 0])
            rows, step, mask, positions = rows[live], step[live], mask[live], positions[live]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return list(zip(texts, ended.tolist(), strict=True))
