"""This package's evaluation beside SAEBench's own code, on one small case of the comparison in `saebench_parity.py`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from saebench_parity import compare
from saebench_peer import known_questions
from saebench_peer_cases import SUBJECTS, Grid, Subject, made_sae, make_task
from saebench_peer_models import load_subject

SETTINGS = Grid(retain_thresholds=(0.01,))
"""Half of SAEBench's settings: both sides' time goes by their number."""


def evaluation_row(
    subject: Subject, model: Any, *, max_asked: int, max_known: int, repeats: int, d_sae: int, batch_size: int = 8
) -> dict[str, Any]:
    """Both sides on a made JumpReLU SAE, with cloze prompts that the model answers right; a random one by chance."""
    task = make_task(subject, model.tokenizer, "cloze", None, max_asked=max_asked)
    with tempfile.TemporaryDirectory() as folder:
        ids = known_questions(model, task, Path(folder), batch_size)
    task = task.only({name: found for name, found in ids.items() if found}, max_known)
    first, second = (made_sae("jumprelu", model, subject.hook_name, task.retain_texts, d_sae) for _ in range(2))
    sizes = {"batch_size": batch_size, "batch_tokens": 256 * batch_size}
    row = {"model": subject.name, "sae": "jumprelu", "d_sae": d_sae, "corpus_tokens": subject.corpus_tokens}
    row |= compare(model, (first, second), task, SETTINGS, repeats=repeats, **sizes)
    print(f"evaluation, {subject.name}: {row['ratio']} x, with selection {row['ratio_with_selection']} x", flush=True)
    return row


def smollm2_row(repeats: int = 3) -> dict[str, Any]:
    """SmolLM2, a real model with real knowledge."""
    subject = replace(SUBJECTS["smollm2-135m-instruct"], corpus_tokens=2_000)
    model = load_subject(subject, "bridge", device="cpu", dtype="float32")
    return evaluation_row(subject, model, max_asked=12, max_known=4, repeats=repeats, d_sae=2304)
