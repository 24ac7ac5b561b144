"""The tiny sweep, and rows of jobs by hand."""

import json
import math
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[2] / "configs"
K, COEFFICIENT = "sae.k", "sae.loss_terms.forget_margin.coefficient"


def tiny_sweep(**changes):
    """Content of the tiny sweep, with paths that hold anywhere."""
    values = yaml.safe_load((CONFIGS / "sweeps/tiny.yaml").read_text())
    values |= {key: str((CONFIGS / "sweeps" / values[key]).resolve()) for key in ("target", "spec")}
    return {**values, "variants": variants("contrastive"), **changes}


def small_inputs(folder):
    """Overrides of the run and of the specification, for texts and questions that are read in a moment."""
    for name in ("general", "forget", "retain"):
        texts = [{"text": f"{name} text number {i} " * 12} for i in range(40)]
        questions = [
            {"id": f"{name}{i}", "domain": name, "relation": "mouth", "entity": f"{name}{i}", "answer": "sea"}
            | {"split": ("select", "held_out")[i % 2], "stems": ["It flows into the"], "distractors": ["lake", "sand"]}
            for i in range(4)
        ]
        for file, records in ((f"{name}.jsonl", texts), (f"{name}_questions.jsonl", questions)):
            (folder / file).write_text("".join(json.dumps(record) + "\n" for record in records))
    corpora = {name: [f"{name}.jsonl"] for name in ("general", "forget", "retain")}
    asked = {f"{side}_questions": [f"{side}_questions.jsonl"] for side in ("forget", "retain")}
    read = {f"{side}_corpora": [f"{side}.jsonl"] for side in ("forget", "retain")}
    return {"corpora": {**corpora, "hold_out_entities_of": []}}, asked | read


def variants(*names):
    return [str(CONFIGS / f"variants/{name}.yaml") for name in names]


class HandMade:
    """Rows that are a formula of the run; `mishaps` has what some runs raise, once each time, by number of the row."""

    def __init__(self):
        self.asked, self.mishaps = [], {}

    def row(self, _runner, job):
        number = len(self.asked)
        self.asked.append(job)
        if number in self.mishaps:
            raise self.mishaps[number]
        k, coefficient = job.run.sae["k"], job.run.sae["loss_terms"]["forget_margin"]["coefficient"]
        forget = min(1.0, (coefficient + job.run.seed) / 20)
        setting = {
            "selector": "firing_rate",
            "selector_options": {},
            "intervention": "zero",
            "intervention_options": {},
        }
        setting |= {"n_features": 1, "n_surviving": 9, "n_selected": 1}
        setting |= {"forget_accuracy": forget, "retain_accuracy": 1 - 1 / k}
        held_out = {"forget_accuracy": forget, "chance": 0.25, "forgetting": 1 - forget, "retain_accuracy": 1.0}
        return {
            "variant": job.run.variant,
            "seed": job.run.seed,
            "forget_domain": "countries",
            "unlearning_score": 1 - forget,
            "held_out": {**held_out, "ci95": [0.0, 1.0]},
            "cause_of_zero": None,
            "retain_gate": 0.5,
            "frontier": [setting],
            "explained_variance": 1 - math.exp(-k / 10),
            "l0": float(k),
        }
