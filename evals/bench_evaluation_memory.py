"""Host memory of an evaluation: what is computed beforehand beside what a run takes, with and without a budget.

A random Gemma-2 of a fraction of the real width and depth is asked 1,000 questions as long as MMLU's, in a process of
its own: once with room for all residual streams and once with room for a tenth of them.
What is kept grows with the width of the residual stream alone, so the real shape follows by multiplication.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from bench_measure import PeakMemory, in_child, machine, versions
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.models import TINY_GEMMA_2, HookedBridge, ModelShape, model_shape
from sae_lens_contrastive.models.embedded import embedded_model_folder
from sae_lens_contrastive.unlearning import EvalSpec
from sae_lens_contrastive.unlearning.plan import estimate_memory
from sae_lens_contrastive.unlearning.shared import HookData
from sae_lens_contrastive.unlearning.spec import EvalInputs

GIB = 2**30
REAL = "gemma-2-2b"
HOOK = "blocks.0.hook_resid_post"


def main() -> None:
    """Measure both budgets and write the result."""
    options = _options()
    shape = model_shape(REAL)
    d_model = shape.d_model // options.divide
    kept = _kept_gib(options, d_model)
    rows = []
    for share in (2.0, 0.1):
        rows.append({"cache_gib": round(share * kept, 4), **in_child(_measure, options, d_model, share * kept)})
        print(json.dumps(rows[-1]), flush=True)
    spec = _spec(options, "bfloat16", 16.0).model_copy(update={"max_corpus_tokens": 2**20})
    real = estimate_memory(spec, shape, {"asked": _questions(options)}, 1.0)
    write_json(
        options.out,
        {
            "machine": machine(),
            "versions": versions(),
            "questions": options.questions,
            "scaled": {
                "d_model": d_model,
                "dtype": "bfloat16",
                "corpus_tokens": options.corpus_tokens,
                "kept_gib_calculated": round(kept, 4),
                "rows": rows,
            },
            REAL: {
                "corpus_tokens": spec.max_corpus_tokens,
                "questions_gib": round(real.questions / GIB, 3),
                "corpora_gib": round(real.corpora / GIB, 3),
                "cache_gib": spec.cache_gib,
                "files_gib": round(real.in_files / GIB, 3),
                "host_gib": round(real.host / GIB, 3),
                "weights_gib": round(real.weights / GIB, 3),
                "host_with_weights_gib": round((real.host + real.weights) / GIB, 3),
            },
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--corpus-tokens", type=int, default=200_000, help="tokens of either corpus")
    parser.add_argument("--divide", type=int, default=4, help="by what the width of Gemma-2-2B is divided")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


def _kept_gib(options: argparse.Namespace, d_model: int) -> float:
    shape = ModelShape(
        n_layers=2, d_model=d_model, d_mlp=0, n_heads=1, d_head=1, d_vocab=1, n_parameters=0, n_block_parameters=0
    )
    # A token of this tokenizer is a byte.
    memory = estimate_memory(_spec(options, "bfloat16", 1e6), shape, {"asked": _questions(options)}, 1.0)
    return (memory.questions + memory.corpora) / GIB


def _measure(options: argparse.Namespace, d_model: int, cache_gib: float) -> dict[str, Any]:
    """Peak memory before and after the questions and corpora are read, and where the budget put them."""
    torch.manual_seed(0)
    model = _random_gemma(d_model)
    questions = _questions(options)
    half = len(questions) // 2
    text = ["tokens of a corpus as they come, one after another. " * 40] * (options.corpus_tokens // 1000)
    inputs = EvalInputs(
        forget_questions={"select": questions[:half]},
        retain_questions={"select": questions[half:]},
        near_questions=[],
        forget_texts=text,
        retain_texts=text,
        digest="",
        questions_digest="",
    )
    with PeakMemory() as peak:
        data = HookData(model, HOOK, _spec(options, "bfloat16", cache_gib), inputs)
        held = data.forget_text.residuals, data.retain_text.residuals
    return {
        "peak_beyond_start_gib": round(peak.beyond_start / GIB, 4),
        "kept_in_memory_gib": round(data.budget.in_memory / GIB, 4),
        "kept_in_files_gib": round(data.budget.in_files / GIB, 4),
        "corpus_rows": sum(map(len, held)),
    }


def _spec(options: argparse.Namespace, dtype: str, cache_gib: float) -> EvalSpec:
    return EvalSpec.model_validate(
        {
            "model": REAL,
            "dtype": dtype,
            "forget_domain": "asked",
            **{key: ["given"] for key in ("forget_questions", "retain_questions", "forget_corpora", "retain_corpora")},
            "prompt": {"style": "letter", "template": "{stem}\n{options}\n:"},
            "corpus_reading": "packed",
            "context_size": 512,
            "max_corpus_tokens": options.corpus_tokens,
            "cache_gib": cache_gib,
            "min_known_questions": 1,
        }
    )


def _questions(options: argparse.Namespace) -> list[Question]:
    """Questions of about 200 tokens, the length of WMDP's and MMLU's with their options, in single bytes."""
    return [
        Question(
            id=f"asked/{i}",
            domain="asked",
            relation="question",
            entity=str(i),
            stems=(f"{i:04d} " + "why " * 20,),
            options=tuple(f"{letter}{i} " + "so " * 8 for letter in "abcd"),
            answer_index=i % 4,
            split="select",
        )
        for i in range(options.questions)
    ]


def _random_gemma(d_model: int) -> HookedBridge:
    # Its tokens are bytes.
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_folder(TINY_GEMMA_2))
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=d_model // 8,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Gemma2ForCausalLM(config).to(torch.bfloat16)
    bridge = HookedBridge.from_hf_model(model, tokenizer, "google/gemma-2-2b", "cpu")
    bridge.requires_grad_(False)
    return bridge


if __name__ == "__main__":
    main()
