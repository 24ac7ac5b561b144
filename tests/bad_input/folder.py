"""A folder in which every command would work, and what a bad input replaces there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from sae_lens.saes.standard_sae import StandardSAEConfig
from safetensors.torch import save_file

from sae_lens_contrastive.models import TINY_GEMMA_2

D_IN, D_SAE = 32, 8

Content = str | bytes | Mapping[str, Any] | list[Any] | None


@dataclass(frozen=True)
class BadInput:
    """One wrong input: a command and the files that differ from a folder where it works."""

    kind: str
    """What the user gives."""
    wrong: str
    """What is wrong with it."""
    command: str
    """The command line."""
    files: Mapping[str, Content] = field(default_factory=dict)
    """Contents by path: bytes, text, or what is written as JSON or YAML; None takes the file away."""

    def content(self, path: str) -> bytes | None:
        """A file's bytes; None if it is taken away."""
        content = self.files[path]
        if content is None or isinstance(content, bytes):
            return content
        if not isinstance(content, str):
            content = yaml.safe_dump(content) if path.endswith(".yaml") else json.dumps(content)
        return content.encode()


TARGET = {
    "model": TINY_GEMMA_2,
    "hook_name": "blocks.19.hook_resid_post",
    "corpora": {
        "general": ["general.txt"],
        "forget": ["forget_corpus.jsonl"],
        "retain": ["general.txt"],
        "hold_out_entities_of": ["forget.jsonl"],
    },
    "sae": {"architecture": "topk", "d_in": D_IN, "d_sae": 64, "k": 4},
    "training": {"training_tokens": 512, "train_batch_size_tokens": 64, "context_size": 16, "cache_tokens": 256},
}
SPEC = {
    "model": TINY_GEMMA_2,
    "forget_domain": "cities",
    "forget_questions": ["forget.jsonl"],
    "retain_questions": ["retain.jsonl"],
    "forget_corpora": ["forget_corpus.jsonl"],
    "retain_corpora": ["general.txt"],
    "n_features": [1],
    "measures": {"random_baseline": None},
}
STUDY = {"target": "target.yaml", "spec": "spec.yaml", "seeds": [0], "settings": {"plain": {"variants": ["v.yaml"]}}}
SEARCH = {"target": "target.yaml", "variant": "v.yaml", "spec": "spec.yaml", "space": {"sae.k": {"choices": [2, 4]}}}
SWEEP = {"target": "target.yaml", "variants": ["v.yaml"], "spec": "spec.yaml", "grid": {"sae.k": [2, 4]}}
SAE_CONFIG = {**StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False).to_dict()}
SAE_CONFIG["metadata"] = {**SAE_CONFIG["metadata"], "hook_name": "blocks.19.hook_resid_post"}
ROW = {
    "variant": "one",
    "seed": 0,
    "forget_domain": "cities",
    "unlearning_score": 0.5,
    "held_out": {
        "forget_accuracy": 0.5,
        "chance": 0.25,
        "forgetting": 0.66,
        "retain_accuracy": 1.0,
        "ci95": [0.4, 0.6],
    },
    "cause_of_zero": None,
}
FORGET_EDIT = {
    "model": TINY_GEMMA_2,
    "hook_name": "blocks.19.hook_resid_post",
    "d_sae": D_SAE,
    "features": [1],
    "directions": [[D_IN**-0.5] * 4],
    "intervention": "clamp",
    "intervention_options": {"multiplier": 20},
}
HISTORY = [{"step": 1, "overall_loss": 1.0}, {"step": 2, "overall_loss": 0.5}]


def question(name: str, **changes: object) -> dict[str, object]:
    """A question record."""
    record: dict[str, object] = {
        "id": f"cities/capital/{name}",
        "domain": "cities",
        "relation": "capital",
        "entity": name,
        "stems": [f"The capital of {name} is"],
        "answer": "a",
        "distractors": ["b", "c"],
        "split": "select",
    }
    return {**record, **changes}


def jsonl(*records: object) -> str:
    """Records, one a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def sae_weights(d_sae: int = D_SAE, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Weights of an SAE that can be evaluated."""
    shapes = {"W_enc": (D_IN, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, D_IN), "b_dec": (D_IN,)}
    return {name: torch.ones(shape).to(dtype) for name, shape in shapes.items()}


def make_folder(folder: Path) -> None:
    """Write all inputs."""
    documents = {"target": TARGET, "v": {}, "spec": SPEC, "study": STUDY, "search": SEARCH, "sweep": SWEEP}
    for name, content in documents.items():
        text = yaml.safe_dump(content) if content else "description: nothing is added\n"
        (folder / f"{name}.yaml").write_text(text)
    splits = [{"split": "held_out"}, {}]
    for side in ("forget", "retain"):
        names = [f"{side}{i}" for i in range(4)]
        records = [question(name, id=f"{side}/{name}", **splits[i % 2]) for i, name in enumerate(names)]
        (folder / f"{side}.jsonl").write_text(jsonl(*records))
    (folder / "forget_corpus.jsonl").write_text(jsonl({"text": "Some cities are old. " * 40, "entities": ["forget1"]}))
    (folder / "general.txt").write_text("A river runs to the sea. " * 60 + "\n\n" + "The hills are green. " * 60)
    (folder / "sae").mkdir()
    (folder / "sae" / "cfg.json").write_text(json.dumps(SAE_CONFIG))
    save_file(sae_weights(), folder / "sae" / "sae_weights.safetensors")
    (folder / "forget_edit.json").write_text(json.dumps(FORGET_EDIT))
    (folder / "results").mkdir()
    (folder / "results" / "results.json").write_text(json.dumps([ROW]))
    (folder / "results" / "history.json").write_text(json.dumps(HISTORY))
