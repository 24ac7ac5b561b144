"""Measure how likely every option of a relation is without its question, and write facts/priors.json."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from build_questions import drafts_for
from making import Draft
from measure_known import option_scores
from names import FACTS, order_key, read_facts
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_lens_contrastive.files import write_json

N_STEMS = 8


def prior_of(model: Any, tokenizer: Any, drafts: list[Draft]) -> dict[str, float]:
    """Mean log-likelihood of each option after the stems of some of the relation's other questions, in nats."""
    options = sorted({option for draft in drafts for option in draft.options})
    scores: dict[str, list[float]] = defaultdict(list)
    for phrasing in range(min(len(draft.stems) for draft in drafts)):
        chosen = sorted(drafts, key=lambda d: order_key("prior", d.stems[phrasing]))[:N_STEMS]
        answers = {draft.stems[phrasing]: draft.answer for draft in chosen}
        for stem, answer in answers.items():
            found = option_scores(model, tokenizer, {stem: options}, 1)
            for option in options:
                if option != answer:
                    scores[option].append(found[stem, option])
    return {option: round(sum(values) / len(values), 3) for option, values in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--domains", nargs="*", help="default: all; the others keep their priors")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    priors: dict[str, dict[str, float]] = read_facts("priors") if args.domains else {}
    for domain in args.domains or [domain for domain in read_facts("targets") if domain != "general"]:
        relations: dict[str, list[Draft]] = defaultdict(list)
        for draft in drafts_for(domain):
            relations[draft.key].append(draft)
        for key, drafts in relations.items():
            priors[key] = prior_of(model, tokenizer, drafts)
            print(key, len(priors[key]), flush=True)
    write_json(FACTS / "priors.json", priors)


if __name__ == "__main__":
    main()
