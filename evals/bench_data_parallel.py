"""Time the SAE's training step with the same total batch on one CPU rank and on two, one thread each.

Ranks are processes that have joined over gloo; each is given whole batches, as in a training, and steps on its share.
A process that has joined none steps on the same batches alone. They take turns in blocks of steps, so that they share
whatever else the machine does. Medians of the blocks' medians are compared, of the slower of two ranks. The processor
time of a step is there as well: on a machine with other work it says more. Activations are sparse sums of fixed
directions, so that features correlate as on a model. `output_kl` and `sentence_margin`, which read text of their own,
are not here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from sae_lens.config import SAETrainerConfig

from sae_lens_contrastive.data.activations import domain_labels, domain_sizes
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.losses import FORGET, LOSS_TERMS
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer

ONLY = {"topk": {"k": 32}, "batchtopk": {"k": 32}, "standard": {"l1_coefficient": 1.0}}
GROUPING = {"every_n_steps": 10, "percentile": 75}
PACKAGES = ("sae-lens-contrastive", "sae-lens", "torch", "transformer-lens")
N_RANKS, WARM_UP_STEPS = 2, 11


def main() -> None:
    """Measure every row and write the result."""
    options = _options()
    turns = multiprocessing.get_context("spawn").Barrier(N_RANKS + 1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, turns, folder)
        multiprocessing.start_processes(_process, arguments, nprocs=N_RANKS + 1, start_method="spawn")
        alone, *ranks = (json.loads((Path(folder) / f"{i}.json").read_text()) for i in range(N_RANKS + 1))
    rows = {name: _row(name, alone[name], [rank[name] for rank in ranks]) for name in alone}
    write_json(
        options.out,
        {
            "machine": f"CPU ({platform.machine()}), {os.cpu_count()} cores, 1 thread a rank, {platform.system()}, "
            f"Python {platform.python_version()}",
            "versions": {package: version(package) for package in PACKAGES},
            "architecture": options.architecture,
            "d_in": options.d_in,
            "d_sae": options.d_sae,
            "batch": options.batch,
            "rows": rows,
        },
    )


def _row(name: str, alone: list[list[float]], ranks: list[list[list[float]]]) -> dict[str, Any]:
    one, one_cpu = (statistics.median(block[i] for block in alone) for i in range(2))
    two, two_cpu = (
        statistics.median(max(block[i] for block in blocks) for blocks in zip(*ranks, strict=True)) for i in range(2)
    )
    print(
        f"  {name:12} one rank {1000 * one:7.1f} ms, two {1000 * two:7.1f} ms: {one / two:.2f} x "
        f"(processor {1000 * one_cpu:.1f} and {1000 * two_cpu:.1f} ms: {one_cpu / two_cpu:.2f} x)"
    )
    return {
        "seconds_one_rank": round(one, 5),
        "seconds_two_ranks": round(two, 5),
        "speed_up": round(one / two, 3),
        "processor_seconds_one_rank": round(one_cpu, 5),
        "processor_seconds_two_ranks": round(two_cpu, 5),
        "processor_speed_up": round(one_cpu / two_cpu, 3),
        "repeats": len(alone),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=ONLY, default="topk")
    parser.add_argument("--d-in", type=int, default=576)
    parser.add_argument("--d-sae", type=int, default=2304)
    parser.add_argument("--batch", type=int, default=4096, help="tokens in a step, over all ranks")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a block")
    parser.add_argument("--repeats", type=int, default=5, help="blocks of each number of ranks")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


def _process(number: int, options: argparse.Namespace, turns: Any, folder: str) -> None:
    """Process 0 steps alone, the others are ranks."""
    torch.set_num_threads(1)
    if number > 0:
        store = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", store, timedelta(hours=1), world_size=N_RANKS, rank=number - 1)
    batches = _batches(options)
    names = [name for name, term in LOSS_TERMS.items() if not term.needs_output_space]
    trainers = {"no terms": _trainer(options, []), "all terms": _trainer(options, names)}
    blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    for repeat in range(-1, options.repeats):
        for name, trainer in trainers.items():
            for is_alone in (True, False):
                turns.wait()
                if is_alone == (number == 0):
                    # The first block warms up, and forms groups.
                    block = _block(trainer, batches, WARM_UP_STEPS if repeat < 0 else options.steps)
                    blocks[name] += [block] if repeat >= 0 else []
    (Path(folder) / f"{number}.json").write_text(json.dumps(blocks))
    if number > 0:
        dist.destroy_process_group()


def _block(trainer: ContrastiveSAETrainer, batches: list[torch.Tensor], n_steps: int) -> tuple[float, float]:
    """Median seconds of a step, and of processor time."""
    times = []
    for step in range(n_steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        trainer.step(batches[step % len(batches)])
        times.append((time.perf_counter() - start, time.process_time() - start_cpu))
        trainer.n_training_steps += 1
    seconds, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    return seconds, cpu


def _trainer(options: argparse.Namespace, terms: list[str]) -> ContrastiveSAETrainer:
    torch.manual_seed(0)
    sae_class, config_class = TRAINING_ARCHITECTURES[options.architecture]
    objective: dict[str, Any] = {"loss_terms": {name: {"coefficient": 0.1} for name in terms}}
    if any(LOSS_TERMS[name].needs_groups for name in terms):
        objective["grouping"] = GROUPING
    cfg = config_class(d_in=options.d_in, d_sae=options.d_sae, **ONLY[options.architecture], **objective)
    trainer_cfg = SAETrainerConfig(
        total_training_samples=options.batch * 100_000,
        train_batch_size_samples=options.batch,
        lr=1e-3,
        lr_end=1e-3,
    )
    domains = domain_labels(domain_sizes(options.batch, 0.25, 0.25))
    sae: Any = sae_class(cfg)
    return ContrastiveSAETrainer(trainer_cfg, sae, iter(()), domains)


def _batches(options: argparse.Namespace, n: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(1024, options.d_in, generator=generator) / options.d_in**0.5
    rates = torch.full((options.batch, 1024), 0.02)
    is_forget = domain_labels(domain_sizes(options.batch, 0.25, 0.25)) == FORGET
    rates[is_forget, :64], rates[~is_forget, :64] = 0.1, 0.002
    return [(5 * (torch.rand(options.batch, 1024, generator=generator) < rates) + 0.0) @ directions for _ in range(n)]


if __name__ == "__main__":
    main()
