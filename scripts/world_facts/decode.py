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
    temperature: float = 0.8
    max_new_tokens: int = 220
    finished_share: float = 0.95
    compact_share: float = 0.33


def seed_for(seed: int, domain: str, batch: int) -> int:
    """A seed that depends on the batch alone, so that an interrupted run resumes to the same text."""
    digest = hashlib.sha256(f"{seed}/{domain}/{batch}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def chat_prompt(request: str) -> str:
    """The chat template without its default system message, which names the model."""
    return f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n"


def _left_padded(tokenizer: Any, requests: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [tokenizer(chat_prompt(r), add_special_tokens=False)["input_ids"] for r in requests]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), tokenizer.eos_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids, mask


@torch.inference_mode()
def sample_answers(
    model: Any, tokenizer: Any, requests: Sequence[str], seed: int, sampling: Sampling
) -> list[tuple[str, bool]]:
    """One answer per request, and whether it ended by itself."""
    generator = torch.Generator().manual_seed(seed)
    ids, mask = _left_padded(tokenizer, requests)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    rows = torch.arange(len(requests))  # rows[i]: the request that batch row i still answers
    answers: list[list[int]] = [[] for _ in requests]
    ended = torch.zeros(len(requests), dtype=torch.bool)
    step = ids
    for _ in range(sampling.max_new_tokens):
        logits = model(
            input_ids=step, attention_mask=mask, position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        ).logits[:, -1].float()  # fmt: skip
        values, indices = logits.topk(sampling.top_k, dim=-1)
        pick = torch.multinomial(
            torch.softmax(values / sampling.temperature, -1), 1, generator=generator
        )
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
