"""Let the embedded model write the corpora: sample batch by batch, resume where a run stopped."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from decode import Sampling, chat_prompt, sample_answers, seed_for
from names import read_facts
from pack_corpora import documents_of
from prompts import Request, requests_for
from tagging import Namer
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_lens_contrastive.files import write_json


def kept_tokens(tokenizer: Any, answers: list[dict[str, Any]], domain: str, namer: Namer) -> int:
    """Tokens of the answers that will be in the corpus."""
    return sum(len(tokenizer(d.text)["input_ids"]) for d in documents_of([answers], domain, namer))


def one_batch(model: Any, tokenizer: Any, path: Path, requests: list[Request], seed: int) -> list[dict[str, Any]]:
    """Sample a batch, or read it if an earlier run finished it with the same requests."""
    prompts = [chat_prompt(tokenizer, request.ask, request.begin) for request in requests]
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if [answer["prompt"] for answer in stored] == prompts:
            return stored
    sampled = sample_answers(model, tokenizer, prompts, seed, Sampling())
    answers = [
        {"id": r.id, "entity": r.entity, "prompt": p, "text": r.begin + text, "ended": ended}
        for r, p, (text, ended) in zip(requests, prompts, sampled, strict=True)
    ]
    write_json(path, answers)
    return answers


def write_domain(model: Any, tokenizer: Any, domain: str, target: int, out: Path, args: Any) -> None:
    """Batches of one domain until the kept text has `target` tokens or the requests run out."""
    requests = requests_for(domain)
    namer = Namer(domain)
    total, started = 0, time.monotonic()
    for batch, start in enumerate(range(0, len(requests), args.batch_size)):
        part = requests[start : start + args.batch_size]
        path = out / f"{domain}-{batch:03d}.json"
        seed = seed_for(args.seed, domain, batch)
        answers = one_batch(model, tokenizer, path, part, seed)
        total += kept_tokens(tokenizer, answers, domain, namer)
        spent = time.monotonic() - started
        left = spent * max(0, target - total) / max(1, total)
        print(f"{domain} batch {batch}: {total:,} of {target:,} tokens, "
              f"{spent:.0f} s, {left:.0f} s left", flush=True)  # fmt: skip
        if total >= target:
            return
    print(f"{domain}: the requests ran out at {total:,} tokens", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("out", type=Path, help="folder for the sampled batches")
    parser.add_argument("--domains", nargs="*", help="default: all, in the order of targets.json")
    parser.add_argument("--batch-size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="per process; several processes may share the domains")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    targets: dict[str, int] = read_facts("targets")
    for domain in args.domains or targets:
        write_domain(model, tokenizer, domain, targets[domain], args.out, args)


if __name__ == "__main__":
    main()
