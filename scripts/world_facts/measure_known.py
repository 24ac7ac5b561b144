"""Count the questions that a model answers rightly under every phrasing, and write known.json."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from names import DATA, read_facts
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from sae_lens_contrastive.data.questions import Question, load_questions
from sae_lens_contrastive.files import read_json, write_json

KNOWN = "right under every phrasing, by the log-likelihood of ' option' after the stem"
Scored = dict[tuple[str, str], float]


@torch.inference_mode()
def option_scores(model: Any, tokenizer: Any, stems: dict[str, list[str]], batch_size: int) -> Scored:
    """For each (stem, option): the sum of log p(token) over the tokens of " option" after the stem, in nats.

    A stem runs once; its key-value cache is repeated for its options. Stems of one length, with options of like
    length, share a batch.
    """
    shapes: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for stem, options in stems.items():
        width = max(len(tokenizer(" " + option)["input_ids"]) for option in options)
        shapes[len(tokenizer(stem)["input_ids"]), len(options), width].append(stem)
    scores: Scored = {}
    for (_, n_options, _), group in shapes.items():
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            pairs = [(stem, option) for stem in part for option in stems[stem]]
            totals = _batch_scores(model, tokenizer, part, [o for _, o in pairs], n_options)
            scores.update(zip(pairs, totals.tolist(), strict=True))
    return scores


def _batch_scores(model: Any, tokenizer: Any, stems: list[str], options: list[str], n_options: int) -> torch.Tensor:
    """Scores of `options`, `n_options` for each of the stems, which all have the same number of tokens."""
    rows = [tokenizer(" " + option)["input_ids"] for option in options]
    width = max(map(len, rows))
    # Padding on the right: causal attention keeps it from every position that is read.
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    kept = torch.tensor([[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows])
    cache = DynamicCache(config=model.config)
    stem_ids = torch.tensor([tokenizer(stem)["input_ids"] for stem in stems])
    after_stem = model(stem_ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    logits = after_stem.repeat_interleave(n_options, 0)
    if width > 1:
        cache.batch_repeat_interleave(n_options)
        logits = torch.cat([logits, model(ids[:, :-1], past_key_values=cache, use_cache=True).logits], 1)
    log_p = torch.log_softmax(logits.float(), -1).gather(2, ids[:, :, None])[:, :, 0]
    return (log_p * kept).sum(1)


def known_ids(model: Any, tokenizer: Any, questions: list[Question], batch_size: int) -> set[str]:
    """Ids of the questions whose right option scores highest under every phrasing."""
    left = questions
    for turn in range(max(len(question.stems) for question in questions)):
        stems: dict[str, set[str]] = defaultdict(set)
        asked = [question for question in left if turn < len(question.stems)]
        for question in asked:
            stems[question.stems[turn]].update(question.options)
        scores = option_scores(model, tokenizer, {s: sorted(o) for s, o in stems.items()}, batch_size)
        missed = {q.id for q in asked if max(q.options, key=lambda o: scores[q.stems[turn], o]) != q.answer}
        left = [question for question in left if question.id not in missed]
    return {question.id for question in left}


def likeliest(question: Question, priors: dict[str, dict[str, float]]) -> str:
    """The option that is said without knowing what the question is about."""
    prior = priors[f"{question.domain}/{question.relation}"]
    return max(question.options, key=lambda option: prior[option])


def summary(questions: list[Question], ids: set[str]) -> dict[str, Any]:
    """Counts of questions, of known ones, by split and by relation, and of those that the prior answers too."""
    known = [question for question in questions if question.id in ids]
    priors = read_facts("priors")
    totals, by_relation = (Counter(q.relation for q in group) for group in (questions, known))
    by_split = Counter(q.split for q in known)
    return {
        "questions": len(questions),
        "known": len(known),
        "known_by_split": {split: by_split[split] for split in ("select", "held_out")},
        "known_by_prior": sum(likeliest(q, priors) == q.answer for q in known),
        "by_relation": {name: {"questions": n, "known": by_relation[name]} for name, n in totals.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--domains", nargs="*", help="default: all; the others keep their counts")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--missed", action="store_true", help="print the questions that are not known")
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    path = DATA / "known.json"
    domains = [domain for domain in read_facts("targets") if domain != "general"]
    counts: dict[str, Any] = read_json(path)["domains"] if path.exists() else {}
    for domain in args.domains or domains:
        questions = load_questions(DATA / "questions" / f"{domain}.jsonl")
        ids = known_ids(model, tokenizer, questions, args.batch_size)
        counts[domain] = summary(questions, ids)
        print(domain, counts[domain], flush=True)
        if args.missed:
            print("\n".join(f"  missed {q.id}: {q.answer}" for q in questions if q.id not in ids))
        measured = {domain: counts[domain] for domain in domains if domain in counts}
        write_json(path, {"model": "smollm2-135m-instruct", "known": KNOWN, "domains": measured})


if __name__ == "__main__":
    main()
