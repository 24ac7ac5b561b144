"""Time one training step: SAELens' own trainer beside this package's, with each loss term and with all trackers.

The rows of a table run in one process and take turns step by step, so that they share whatever else the machine does.
Terms cost the same at every step: their medians are compared. Trackers act every 50 or 100 steps: means over whole
schedules are compared. Activations are sparse sums of fixed directions, so that features correlate as on a model.
`output_kl` runs a model and is measured with it, in `bench_side_by_side.py`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import tracemalloc
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
from sae_lens_contrastive.losses import FORGET, LOSS_TERMS
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer

STOCK = {"topk": (TopKTrainingSAE, TopKTrainingSAEConfig), "standard": (StandardTrainingSAE, StandardTrainingSAEConfig)}
ONLY = {"topk": {"k": 32}, "standard": {"l1_coefficient": 1.0}}
GROUPING_STEPS, SCHEDULE_STEPS, WARM_UP_STEPS = 10, 100, 3
GROUPING = {"every_n_steps": 100, "percentile": 75}
TRACKERS = {
    "grouping": GROUPING,
    "importance": {
        "activation_weight": 0.35,
        "gradient_weight": 0.5,
        "mutual_information_weight": 0.15,
        "every_n_steps": 50,
    },
    "pruning": {"share": 0.05, "threshold": 0.01, "every_n_steps": 50},
    "stability": {"every_n_steps": 100},
}
NOT_HERE = ("output_kl",)
PACKAGES = ("sae-lens-contrastive", "sae-lens", "torch", "transformer-lens")


def main() -> None:
    """Measure every table and write the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    tables = [
        *(_terms(architecture, 2304, options) for architecture in STOCK),
        *(_trackers(architecture, 2304, 2, options) for architecture in STOCK),
        _trackers("topk", 16_384, 1, options),
    ]
    write_json(
        options.out,
        {
            "machine": _machine(options),
            "versions": {package: version(package) for package in PACKAGES},
            "tables": tables,
        },
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--batch", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--steps", type=int, default=60, help="timed steps of each row of loss terms")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


def _terms(architecture: str, d_sae: int, options: argparse.Namespace) -> dict[str, Any]:
    """SAELens' step beside ours without terms, with each term, and with all of them."""
    names = [name for name in LOSS_TERMS if name not in NOT_HERE]
    objectives: dict[str, list[str]] = {"no terms": [], **{name: [name] for name in names}, "all terms": names}
    trainers: dict[str, SAETrainer[Any, Any]] = {"SAELens": _host_trainer(architecture, d_sae, options)}
    for label, chosen in objectives.items():
        needs_groups = any(LOSS_TERMS[name].needs_groups for name in chosen)
        trainers[label] = _trainer(
            architecture,
            d_sae,
            options,
            loss_terms={name: {"coefficient": 0.1} for name in chosen},
            grouping={**GROUPING, "every_n_steps": GROUPING_STEPS} if needs_groups else None,
        )
    batches = _batches(options)
    _take_turns(trainers, batches, GROUPING_STEPS)
    for trainer in trainers.values():
        # Groups have been formed, and stay: their cost is the trackers' table.
        if isinstance(trainer, ContrastiveSAETrainer):
            trainer.parts = []
    seconds = _take_turns(trainers, batches, options.steps)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return _table("loss terms", architecture, d_sae, options, medians)


def _trackers(architecture: str, d_sae: int, n_schedules: int, options: argparse.Namespace) -> dict[str, Any]:
    """SAELens' step beside ours with all trackers, and how the trackers' time divides."""
    ours = _trainer(architecture, d_sae, options, loss_terms={}, **TRACKERS)
    batches = _batches(options)
    trainers = {"SAELens": _host_trainer(architecture, d_sae, options), "all trackers": ours}
    _take_turns(trainers, batches, WARM_UP_STEPS)
    spent = {part.name: _timed(part) for part in ours.parts}
    times = _take_turns(trainers, batches, n_schedules * SCHEDULE_STEPS)
    seconds = {name: statistics.fmean(each) for name, each in times.items()}
    table = _table("trackers", architecture, d_sae, options, seconds)
    base = seconds["SAELens"]
    for name, times in spent.items():
        share = sum(times) / len(times) / base
        table["rows"][name] = {"seconds_mean": round(sum(times) / len(times), 6), "ratio_to_saelens": round(share, 4)}
        print(f"  {name:24} adds {100 * share:5.2f} %")
    table["grouping_peak_mib"] = _peak_of_a_grouping(ours, batches[0])
    print(f"  peak of a grouping beyond what was held: {table['grouping_peak_mib']} MiB")
    return table


def _host_trainer(architecture: str, d_sae: int, options: argparse.Namespace) -> SAETrainer[Any, Any]:
    sae_class, config_class = STOCK[architecture]
    sae = sae_class(config_class(d_in=options.d_in, d_sae=d_sae, device=options.device, **ONLY[architecture]))
    return SAETrainer(_trainer_config(options), sae, iter(()))


def _trainer(architecture: str, d_sae: int, options: argparse.Namespace, **objective: Any) -> ContrastiveSAETrainer:
    our_class, our_config = TRAINING_ARCHITECTURES[architecture]
    sizes: dict[str, Any] = {"d_in": options.d_in, "d_sae": d_sae, "device": options.device}
    sae: Any = our_class(our_config(**sizes, **ONLY[architecture], **objective))
    domains = domain_labels(domain_sizes(options.batch, 0.25, 0.25))
    return ContrastiveSAETrainer(_trainer_config(options), sae, iter(()), domains)


def _trainer_config(options: argparse.Namespace) -> SAETrainerConfig:
    return SAETrainerConfig(
        total_training_samples=options.batch * 100_000,
        train_batch_size_samples=options.batch,
        lr=1e-3,
        lr_end=1e-3,
        device=options.device,
    )


def _batches(options: argparse.Namespace, n: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(1024, options.d_in, generator=generator) / options.d_in**0.5
    # Directions come in families, and forget tokens (the second quarter from the end) have some of their own.
    rates = torch.full((options.batch, 1024), 0.02)
    is_forget = domain_labels(domain_sizes(options.batch, 0.25, 0.25)) == FORGET
    rates[is_forget, :64], rates[~is_forget, :64] = 0.1, 0.002
    batches = []
    for _ in range(n):
        family = torch.rand(options.batch, 128, generator=generator).repeat_interleave(8, dim=1)
        active = (torch.rand(options.batch, 1024, generator=generator) * family) < rates / 2
        strengths = 5 * active * (1 + torch.rand(options.batch, 1024, generator=generator))
        batches.append((strengths @ directions).to(options.device))
    return batches


def _take_turns(
    trainers: dict[str, SAETrainer[Any, Any]], batches: list[torch.Tensor], n_steps: int
) -> dict[str, list[float]]:
    """Seconds of every step, as `fit()` makes them: one of each trainer, then the next of each."""
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for step in range(n_steps):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.step(batches[step % len(batches)])
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
            trainer.n_training_steps += 1
    return seconds


def _timed(part: Any) -> list[float]:
    """Seconds of every call of a part, from here on."""
    times: list[float] = []
    after_step = part.after_step

    def timed(view: Any) -> None:
        start = time.perf_counter()
        after_step(view)
        times.append(time.perf_counter() - start)

    part.after_step = timed
    return times


def _peak_of_a_grouping(trainer: ContrastiveSAETrainer, batch: torch.Tensor) -> float:
    """Highest memory that numpy and scipy hold during a step that forms groups, in MiB."""
    while (trainer.n_training_steps + 1) % GROUPING["every_n_steps"]:
        trainer.step(batch)
        trainer.n_training_steps += 1
    tracemalloc.start()
    trainer.step(batch)
    trainer.n_training_steps += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


def _table(
    title: str, architecture: str, d_sae: int, options: argparse.Namespace, seconds: dict[str, float]
) -> dict[str, Any]:
    base = seconds["SAELens"]
    print(f"\n{title}, {architecture}, d_sae {d_sae}")
    rows = {}
    for name, each in seconds.items():
        rows[name] = {"seconds": round(each, 5), "ratio_to_saelens": round(each / base, 3)}
        print(f"  {name:24} {1000 * each:9.1f} ms  {each / base:6.3f} x")
    sizes = {"d_in": options.d_in, "d_sae": d_sae, "batch": options.batch}
    return {"title": title, "architecture": architecture, **sizes, "rows": rows}


def _machine(options: argparse.Namespace) -> str:
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"CPU ({platform.machine()})"
    threads = f"{os.cpu_count()} cores, {options.threads} threads"
    return f"{where}, {threads}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
