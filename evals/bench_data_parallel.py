"""Time the SAE's training step with the same total batch on one CPU rank and on two, one thread each.

Ranks are processes that have joined over gloo; each is given whole batches, as in a training, and steps on its share.
A process that has joined none steps on the same batches alone. They take turns in blocks of steps, so that they share
whatever else the machine does. Medians of the blocks' medians are compared, of the slower of two ranks. The processor
time of a step is there as well: on a machine with other work it says more. `output_kl` and `sentence_margin`, which
read text of their own, are not here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from bench_measure import machine, versions
from bench_setup import STOCK, StepShape, batches, our_trainer

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.losses import LOSS_TERMS
from sae_lens_contrastive.training import ContrastiveSAETrainer

N_RANKS, WARM_UP_STEPS = 2, 11


def main() -> None:
    """Measure every row and write the result."""
    options = _options()
    torch.set_num_threads(1)
    turns = multiprocessing.get_context("spawn").Barrier(N_RANKS + 1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, turns, folder)
        multiprocessing.start_processes(_process, arguments, nprocs=N_RANKS + 1, start_method="spawn")
        alone, *ranks = (json.loads((Path(folder) / f"{i}.json").read_text()) for i in range(N_RANKS + 1))
    rows = {name: _row(name, alone[name], [rank[name] for rank in ranks]) for name in alone}
    write_json(
        options.out,
        {
            "machine": machine(),
            "versions": versions(),
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
    parser.add_argument("--architecture", choices=STOCK, default="topk")
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
    shape = StepShape(options.architecture, options.d_sae, options.d_in, options.batch)
    data = batches(shape, 4)
    names = [name for name, term in LOSS_TERMS.items() if not term.needs_output_space]
    torch.manual_seed(0)
    trainers = {"no terms": our_trainer(shape), "all terms": our_trainer(shape, names)}
    blocks: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    for repeat in range(-1, options.repeats):
        for name, trainer in trainers.items():
            for is_alone in (True, False):
                turns.wait()
                if is_alone == (number == 0):
                    # The first block warms up, and forms groups.
                    block = _block(trainer, data, WARM_UP_STEPS if repeat < 0 else options.steps)
                    blocks[name] += [block] if repeat >= 0 else []
    (Path(folder) / f"{number}.json").write_text(json.dumps(blocks))
    if number > 0:
        dist.destroy_process_group()


def _block(trainer: ContrastiveSAETrainer, data: list[torch.Tensor], n_steps: int) -> tuple[float, float]:
    """Median seconds of a step, and of processor time."""
    times = []
    for step in range(n_steps):
        start, start_cpu = time.perf_counter(), time.process_time()
        trainer.step(data[step % len(data)])
        times.append((time.perf_counter() - start, time.process_time() - start_cpu))
        trainer.n_training_steps += 1
    seconds, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    return seconds, cpu


if __name__ == "__main__":
    main()
