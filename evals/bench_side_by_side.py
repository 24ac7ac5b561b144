"""Time the study's five variants side by side beside one of them alone, activations generated as they train.

Both run the whole schedule (groups, importance, pruning, output-space KL) over the same tokens of SmolLM2. They take
turns; medians are compared. The share of a variant in its own steps says where the time goes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_measure import machine, versions

from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.training import resolve_runs, train_runs

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("run0", "run1", "run2", "run3", "run4")


def main() -> None:
    """Measure and write the result."""
    options = _options()
    target = ROOT / "configs/targets/smollm2.yaml"
    batch = 2048
    training = {
        "training_tokens": batch * options.steps,
        "train_batch_size_tokens": batch,
        "cache_tokens": 0,
        "n_batches_in_buffer": 64,
        "n_checkpoints": 0,
    }
    overrides = {"device": options.device, "training": training}
    paths = {name: ROOT / f"configs/variants/{name}.yaml" for name in VARIANTS}
    model = load_model("smollm2-135m-instruct", device=options.device)
    seconds: dict[str, list[float]] = {"one": [], "five": []}
    summaries: dict[str, Any] = {}
    for _ in range(options.repeats):
        for label, names in (("one", [options.one]), ("five", list(VARIANTS))):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                folders = train_runs(resolve_runs(target, [paths[name] for name in names], overrides), folder, model)
                seconds[label].append(time.perf_counter() - start)
                summaries = {path.name: read_json(path / "summary.json") for path in folders}
    medians = {label: statistics.median(times) for label, times in seconds.items()}
    # train_seconds of a run side by side is its own steps and everything shared: what it would take alone.
    alone = {name: round(summary["train_seconds"], 2) for name, summary in summaries.items()}
    result = {
        "machine": machine(options.device),
        "versions": versions(),
        "tokens": batch * options.steps,
        "seconds_one": round(medians["one"], 2),
        "one": options.one,
        "seconds_five": round(medians["five"], 2),
        "ratio": round(medians["five"] / medians["one"], 3),
        "seconds_of_each_alone_by_its_steps": alone,
        "repeats": seconds,
    }
    print(f"{options.one} alone {medians['one']:.1f} s, five side by side {medians['five']:.1f} s: {result['ratio']} x")
    write_json(options.out, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="training steps of 2048 tokens")
    parser.add_argument("--one", choices=VARIANTS, default="run0", help="the variant that is trained alone")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
