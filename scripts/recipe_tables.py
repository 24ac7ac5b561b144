"""Tables of the recipe's results: run 5, its peers, other domains, ablations; made for `docs/results.md`."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sae_lens_contrastive.report.seeds import Spread

ROOT = Path(__file__).resolve().parent.parent
RMU = ROOT / "evals/results/rmu.json"

Row = dict[str, Any]
Cell = Callable[[Row], float | None]

DOMAINS = ("animals", "chemical_elements", "irregular_verbs", "opposites")


def _held_out(key: str) -> Cell:
    return lambda row: row["held_out"][key]


def _measure(*path: str) -> Cell:
    def cell(row: Row) -> float | None:
        found: Any = row["measures"]
        for key in path:
            found = None if found is None else found[key]
        return found

    return cell


_SCORES: dict[str, Cell] = {
    "forget accuracy": _held_out("forget_accuracy"),
    "forgetting": _held_out("forgetting"),
    "score": lambda row: row["unlearning_score"],
    "retain accuracy": _held_out("retain_accuracy"),
}
_COSTS: dict[str, Cell] = {
    "near domains": lambda row: row["near_accuracy"],
    "retain text, KL (nats)": _measure("text_effects", "retain", "kl"),
    "paraphrases": _measure("paraphrases", "accuracy"),
    "recall kept": _measure("recall", "forget", "kept"),
    "training (s)": lambda row: row["train_seconds"],
}
_RECONSTRUCTION: dict[str, Cell] = {
    "explained variance": _measure("reconstruction", "explained_variance"),
    "loss recovered": _measure("reconstruction", "loss_recovered"),
    "l0": _measure("reconstruction", "l0"),
    "dead features": lambda row: row["dead_features"],
    "loss, retain text (nats)": _measure("reconstruction", "loss"),
    "with the reconstruction": _measure("reconstruction", "reconstructed_loss"),
}


_HEADLINE: dict[str, Cell] = {
    key: cell for key, cell in {**_SCORES, **_COSTS}.items() if key not in ("score", "paraphrases", "training (s)")
}


def methods(rows: list[Row]) -> dict[str, list[Row]]:
    """A row for each seed of every way to forget countries; none for one that has not been run."""
    return {
        "run 5": _of(rows, "countries", "run5"),
        "run 5, not gated": _of(rows, "countries", "run5, clamp"),
        **_rmu(),
        "baseline, clamp": _of(rows, "baseline", "baseline"),
        "baseline, gated": _of(rows, "baseline", "baseline, gated"),
    }


def headline(rows: list[Row]) -> list[str]:
    """The recipe and what a user would pick instead, in the numbers that decide."""
    named = methods(rows)
    del named["run 5, not gated"]
    return _table("method", named, _HEADLINE)


def peers(rows: list[Row]) -> list[str]:
    """Every way to forget countries, on held-out questions."""
    named = methods(rows)
    lines = _table("method", named, {**_SCORES, **_COSTS})
    for label, of in (("run 5", named["run 5"]), ("baseline", named["baseline, clamp"])):
        if of:
            lines.append(_random_features(label, of, len(_SCORES) + len(_COSTS)))
    return lines


def reconstruction(rows: list[Row]) -> list[str]:
    """What an SAE loses of retain text by itself."""
    named = {"run 5": _of(rows, "countries", "run5"), "baseline": _of(rows, "baseline", "baseline")}
    return _table("SAE", named, _RECONSTRUCTION)


def domains(rows: list[Row]) -> list[str]:
    """The recipe on other forget domains."""
    named = {name.replace("_", " "): _of(rows, name, "run5") for name in DOMAINS}
    return _table("forget domain", named, _SCORES)


def shuffled(rows: list[Row]) -> list[str]:
    """Labels that mean nothing, beside the baseline."""
    named = {"run 5, shuffled labels": _of(rows, "shuffled", "run5"), "baseline": _of(rows, "baseline", "baseline")}
    return _table("SAE", named, _SCORES)


def ablation(rows: list[Row]) -> list[str]:
    """Run 5 with one part changed at a time."""
    parts = dict.fromkeys(row["study_setting"] for row in rows if row["study_setting"].startswith("without"))
    named = {"run 5": _of(rows, "countries", "run5")} | {part.replace("_", " "): _of(rows, part) for part in parts}
    return _table("SAE", named, {**_SCORES, "near domains": _COSTS["near domains"]})


def relearning(rows: list[Row]) -> list[str]:
    """Accuracy on held-out forget questions while the model is fine-tuned on other text of the domain."""
    named = {
        "run 5": _of(rows, "countries", "run5"),
        **_rmu(),
    }
    measured = [row["measures"]["relearning"] for found in named.values() for row in found]
    steps = next((found["steps"] for found in measured if found), [])

    def after(place: int) -> Cell:
        return lambda row: row["measures"]["relearning"] and row["measures"]["relearning"]["accuracy"][place]

    return _table("accuracy after steps", named, {str(step): after(place) for place, step in enumerate(steps)})


VIEWS: dict[str, Callable[[list[Row]], list[str]]] = {
    each.__name__: each for each in (headline, peers, reconstruction, domains, shuffled, ablation, relearning)
}
"""Tables by the name that follows `#` in a document."""


def _rmu() -> dict[str, list[Row]]:
    """RMU's results; none as long as it has not been run."""
    rows = json.loads(RMU.read_text(encoding="utf-8")) if RMU.is_file() else []
    names = {"rmu": "RMU", "rmu-ungated": "RMU, no retain gate"}
    return {label: [row for row in rows if row["variant"] == variant] for variant, label in names.items()}


def _of(rows: Iterable[Row], setting: str, variant: str | None = None) -> list[Row]:
    return [row for row in rows if row["study_setting"] == setting and variant in (None, row["variant"])]


def _table(title: str, named: dict[str, list[Row]], cells: dict[str, Cell]) -> list[str]:
    lines = [f"| {title} | seeds | " + " | ".join(cells) + " |", "|---" * (len(cells) + 2) + "|"]
    for name, rows in named.items():
        if not rows:
            continue
        below = sum(row["below_chance"] for row in rows)
        values = [_text([cell(row) for row in rows]) for cell in cells.values()]
        if below and "forget accuracy" in cells:
            values[0] += f", below chance with {below} of {len(rows)}"
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(values) + " |")
    return lines


def _text(values: list[float | None]) -> str:
    """Mean and interval; of how many seeds where not every one has an edit to measure."""
    known = tuple(value for value in values if value is not None)
    if not known:
        return "-"
    mean = Spread(known).mean
    text = Spread(known).text("{:.0f}" if abs(mean) >= 20 else "{:.4f}" if abs(mean) < 0.05 else "{:.3f}")
    return text if len(known) == len(values) else f"{text} ({len(known)} seeds)"


def _random_features(label: str, rows: list[Row], n_cells: int) -> str:
    found = [row["measures"]["random_baseline"] for row in rows]
    values = [_text([each and each[key] for each in found]) for key in ("mean_forget_accuracy", "forgetting")]
    filled = [*values, _text([each and each["mean_score"] for each in found])]
    return f"| random features of {label} | {len(rows)} | " + " | ".join(filled + ["-"] * (n_cells - 3)) + " |"
