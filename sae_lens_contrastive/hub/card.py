"""The model card: what the SAEs make a model forget, at what cost, how they were trained, how they are used."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from sae_lens_contrastive.hub.publication import Publication

_TAGS = ["sparse-autoencoder", "saelens", "knowledge-unlearning", "sae-lens-contrastive"]

_SCORES: dict[str, Callable[[Publication], str]] = {
    "forget domain": lambda p: plain(p.result.forget_domain),
    "forgetting": lambda p: f"{p.result.held_out.forgetting:.3f}",
    "forget accuracy (95 % interval)": lambda p: (
        _with_interval(p) + (", below chance" if p.result.below_chance else "")
    ),
    "chance": lambda p: f"{p.result.held_out.chance:.3f}",
    "retain accuracy": lambda p: f"{p.result.held_out.retain_accuracy:.3f}",
    "near domains": lambda p: "-" if p.result.near_accuracy is None else f"{p.result.near_accuracy:.3f}",
    "unlearning score": lambda p: f"{p.result.unlearning_score:.3f}",
    "cause of a zero": lambda p: f"`{p.result.cause_of_zero}`" if p.result.cause_of_zero else "-",
}
_FACTS: dict[str, Callable[[Publication], str]] = {
    "model": lambda p: plain(_metadata(p).get("model_name")),
    "hook": lambda p: plain(p.facts.hook_name),
    "architecture": lambda p: plain((p.facts.config or {}).get("architecture")),
    "d_in": lambda p: str(p.facts.d_in),
    "d_sae": lambda p: str(p.facts.d_sae),
    "edited features": lambda p: str(len(p.result.features)),
    "intervention": lambda p: (
        "-" if p.edit is None else f"{p.edit.intervention}, {_options(p.edit.intervention_options)}"
    ),
}


def model_card(publications: Mapping[str, Publication], repo_id: str) -> str:
    """Text of the card, with the metadata that the hub reads; whatever comes from results is written as plain text."""
    models = dict.fromkeys(str(_metadata(p).get("model_name")) for p in publications.values())
    # The hub knows a base model by owner and name; any other is in the text.
    base = [
        name for name in models if name.count("/") == 1 and not name.startswith((".", "/")) and not Path(name).is_dir()
    ]
    data = ModelCardData(library_name="saelens", base_model=base or None, tags=_TAGS)
    domains = ", ".join(dict.fromkeys(plain(p.result.forget_domain) for p in publications.values()))
    sections = [
        f"# Sparse autoencoders that make a model forget: {domains}",
        "Trained and evaluated with sae-lens-contrastive. An SAE alone changes nothing; its forget edit, where there "
        "is one, edits features of the forget domain at the hook. The table says how far the model then forgets.",
        "## What is forgotten, and what is kept",
        _table(publications, _SCORES),
        "Settings were chosen on one half of the questions; *forgetting*, both accuracies and near domains are of the "
        "other half, among the questions that the unedited model answers right under every phrasing. Forgetting is "
        "(1 - forget accuracy) / (1 - chance), at most 1. The interval is a bootstrap over entities. The unlearning "
        "score is SAEBench's, on all questions. `<sae>/unlearning_eval_results.json` has every setting that was tried.",
        "What is forgotten here is what these questions ask. An edit hides knowledge from what the model says; it does "
        "not take it out of the weights, and whoever has the model can leave the edit out.",
        "## The SAEs",
        _table(publications, _FACTS),
        *_usage(publications, repo_id),
        *_training(publications),
        "## Provenance",
        _provenance(publications),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"))


def plain(text: object) -> str:
    """Text that is neither markup nor another cell, on one line."""
    escaped = html.escape(" ".join(str(text).split()), quote=False)
    for sign in "\\`*_|[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped


def _usage(publications: Mapping[str, Publication], repo_id: str) -> list[str]:
    first = next(iter(publications))
    sections = [
        "## Load one",
        "With SAELens alone:",
        _code(
            "python",
            f"from sae_lens import SAE\n\nsae = SAE.from_pretrained({json.dumps(repo_id)}, {json.dumps(first)})",
        ),
    ]
    edited = [name for name, publication in publications.items() if publication.edit is not None]
    if not edited:
        return sections
    name, edit = edited[0], publications[edited[0]].edit
    assert edit is not None
    return [
        *sections,
        "## Make the model forget",
        "With sae-lens-contrastive, on a HookedTransformer, a TransformerBridge or a model of transformers:",
        _code(
            "python",
            "from sae_lens_contrastive.forget_edit import apply_forget_edit\n"
            "from sae_lens_contrastive.hub import download_forget_edit\n\n"
            f"edit = download_forget_edit({json.dumps(repo_id)}, {json.dumps(name)})\n"
            "with apply_forget_edit(model, sae, edit, tokenizer):  # or keep it, and call .remove()\n"
            "    model.generate(...)",
        ),
        _code("bash", f'sae-lens-contrastive generate --release {repo_id} --sae-id {name} --prompt "..."'),
    ]


def _training(publications: Mapping[str, Publication]) -> list[str]:
    """Configurations, as far as they are known."""
    found = [(name, p.training) for name, p in publications.items() if p.training is not None]
    texts = [
        f"<details><summary>{plain(name)}</summary>\n\n"
        + _code("yaml", yaml.safe_dump(dict(training), sort_keys=False, allow_unicode=True).rstrip())
        + "\n\n</details>"
        for name, training in found
    ]
    return ["## Training", *texts] if texts else []


def _provenance(publications: Mapping[str, Publication]) -> str:
    lines = ["| SAE | seed | SHA-256 of the SAE | of the model | versions |", "|---|---|---|---|---|"]
    for name, publication in publications.items():
        of = publication.result.provenance
        versions = ", ".join(f"{plain(package)} {plain(number)}" for package, number in of.versions.items())
        hashes = f"{plain(of.sae_sha256[:16])} | {plain(of.model_sha256[:16])}"
        lines.append(f"| {plain(name)} | {publication.result.seed} | {hashes} | {versions} |")
    return "\n".join(lines)


def _table(publications: Mapping[str, Publication], cells: Mapping[str, Callable[[Publication], str]]) -> str:
    lines = ["| SAE | " + " | ".join(cells) + " |", "|---" * (len(cells) + 1) + "|"]
    lines += [
        f"| {plain(name)} | " + " | ".join(cell(publication) for cell in cells.values()) + " |"
        for name, publication in publications.items()
    ]
    return "\n".join(lines)


def _code(language: str, text: str) -> str:
    # A fence longer than any in the text: nothing in it ends the block.
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def _with_interval(publication: Publication) -> str:
    held_out = publication.result.held_out
    low, high = held_out.ci95
    return f"{held_out.forget_accuracy:.3f} ({low:.3f} to {high:.3f})"


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(key)} {plain(json.dumps(value))}" for key, value in options.items())


def _metadata(publication: Publication) -> Mapping[str, Any]:
    return (publication.facts.config or {}).get("metadata") or {}
