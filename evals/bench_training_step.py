"""Time one training step: SAELens' own trainer beside this package's, with each loss term.

All rows run in one process and take turns, so that they share whatever else the machine does. A turn is as many steps
as lie between two groupings, so that the cost of a grouping is in every turn; the medians over turns are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from sae_lens_contrastive.data.activations import domain_labels, domain_sizes
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.losses import LOSS_TERMS
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer

STOCK = {"topk": (TopKTrainingSAE, TopKTrainingSAEConfig), "standard": (StandardTrainingSAE, StandardTrainingSAEConfig)}
ONLY = {"topk": {"k": 32}, "standard": {"l1_coefficient": 1.0}}
STEPS_PER_TURN = 20
GROUPING = {"every_n_steps": STEPS_PER_TURN, "percentile": 75}
PACKAGES = ("sae-lens-contrastive", "sae-lens", "torch", "transformer-lens")


def main() -> None:
    """Measure every row and write the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    batches = [torch.randn(options.batch, options.d_in, device=options.device) for _ in range(8)]
    rows: dict[str, dict[str, Any]] = {}
    for architecture in STOCK:
        turns = {name: _turn(trainer, batches) for name, trainer in _trainers(architecture, options).items()}
        seconds = _alternate(turns, options.repeats)
        base = seconds["SAELens"]
        for name, median in seconds.items():
            rows[f"{architecture}: {name}"] = {
                "seconds_median": round(median, 5),
                "ratio_to_saelens": round(median / base, 3),
            }
    for name, row in rows.items():
        print(f"{name:52} {1000 * row['seconds_median']:9.1f} ms  {row['ratio_to_saelens']:6.3f} x")
    result = {
        "machine": _machine(options),
        "versions": {package: version(package) for package in PACKAGES},
        "sizes": {"d_in": options.d_in, "d_sae": options.d_sae, "batch": options.batch},
        "rows": rows,
    }
    write_json(options.out, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--d-sae", type=int, default=2304)
    parser.add_argument("--batch", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--repeats", type=int, default=5, help=f"timed turns of each row, {STEPS_PER_TURN} steps each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


def _trainers(architecture: str, options: argparse.Namespace) -> dict[str, SAETrainer[Any, Any]]:
    """SAELens' trainer, ours without terms, with grouping alone, and with each term."""
    sae_class, config_class = STOCK[architecture]
    shared: dict[str, Any] = {
        "d_in": options.d_in,
        "d_sae": options.d_sae,
        "device": options.device,
        **ONLY[architecture],
    }
    trainers: dict[str, SAETrainer[Any, Any]] = {
        "SAELens": SAETrainer(_trainer_config(options), sae_class(config_class(**shared)), iter(()))
    }
    objectives: dict[str, dict[str, Any]] = {"no terms": {}, "grouping alone": {"grouping": GROUPING}}
    for name, term in LOSS_TERMS.items():
        grouping = {"grouping": GROUPING} if term.needs_groups else {}
        objectives[f"{name} with grouping" if grouping else name] = {
            "loss_terms": {name: {"coefficient": 0.1}},
            **grouping,
        }
    domains = domain_labels(domain_sizes(options.batch, 0.25, 0.25))
    our_class, our_config = TRAINING_ARCHITECTURES[architecture]
    for name, objective in objectives.items():
        sae: Any = our_class(our_config(**shared, **objective))
        trainers[name] = ContrastiveSAETrainer(_trainer_config(options), sae, iter(()), domains)
    return trainers


def _trainer_config(options: argparse.Namespace) -> SAETrainerConfig:
    return SAETrainerConfig(
        total_training_samples=options.batch * STEPS_PER_TURN * (1 + options.repeats),
        train_batch_size_samples=options.batch,
        lr=1e-3,
        lr_end=1e-3,
        device=options.device,
    )


def _turn(trainer: SAETrainer[Any, Any], batches: list[torch.Tensor]) -> Callable[[], None]:
    """The steps of one turn, as `fit()` makes them."""

    def turn() -> None:
        for _ in range(STEPS_PER_TURN):
            trainer.step(batches[trainer.n_training_steps % len(batches)])
            trainer.n_training_steps += 1

    return turn


def _alternate(turns: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of a step, after one turn of each that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for repeat in range(1 + repeats):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat > 0:
                seconds[name].append((time.perf_counter() - start) / STEPS_PER_TURN)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _machine(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"CPU ({platform.machine()})"
    threads = f"{os.cpu_count()} cores, {options.threads} threads"
    return f"{where}, {threads}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
