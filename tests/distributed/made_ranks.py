"""Functions run by several processes that have joined one process group."""

import multiprocessing
from datetime import timedelta

import torch
import torch.distributed as dist

# Forked from a process that has imported everything: a rank begins in a moment.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sae_lens_contrastive.training"])


def _rank(rank, n, folder, act, arguments, wait_seconds):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous", timedelta(seconds=wait_seconds), world_size=n, rank=rank
    )
    torch.save(act(*arguments), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def started_ranks(n, folder, act, *arguments, wait_seconds=60):
    """Processes that run `act` as the ranks of one group."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    ranks = [CONTEXT.Process(target=_rank, args=(rank, n, folder, act, arguments, wait_seconds)) for rank in range(n)]
    for process in ranks:
        process.start()
    return ranks


def on_ranks(n, folder, act, *arguments):
    """What `act` returns on each of n ranks."""
    ranks = started_ranks(n, folder, act, *arguments)
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * n
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(n)]
