"""Ranks: which one this process is, how it joins the others, and what it says when one is gone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partialmethod

import torch
import torch.distributed as dist
from tqdm import tqdm

from sae_lens_contrastive.errors import LostRankError, UserError, first_line

WAIT_SECONDS = 600.0
"""Seconds that ranks wait for each other, unless they are told otherwise."""


def n_ranks() -> int:
    """Ranks of the initialised process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this rank, from 0."""
    return dist.get_rank() if n_ranks() > 1 else 0


def is_first() -> bool:
    """Whether this is the rank that writes files and speaks."""
    return rank() == 0


def launched_ranks() -> int:
    """Ranks that torchrun has started, before they have joined; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1


def launched_rank() -> int:
    """Number of this rank among those that torchrun has started."""
    return int(os.environ.get("RANK", "0")) if dist.is_torchelastic_launched() else 0


@contextmanager
def joined(device: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Join the ranks that torchrun has started, over gloo, and for tensors on a GPU over NCCL.

    On `cuda` each rank of a machine has the GPU of its local rank. A rank that waits for another one for
    `wait_seconds` gives up. Only the first rank draws progress bars. SIGTERM, by which torchrun ends the other ranks
    when one has failed, interrupts as Ctrl-C does.

    Raises `UserError` if a machine has fewer GPUs than ranks, `LostRankError` if a rank cannot be reached.
    """
    if launched_ranks() == 1:
        yield
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        _take_gpu(int(os.environ["LOCAL_RANK"]))
    with all_ranks():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(seconds=wait_seconds))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with nullcontext() if is_first() else _without_bars():
            yield
    except LostRankError:
        # It comes from torchrun at this moment, and would hide the exit code and what is said.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    # Not after an error: the others may be gone, and leaving waits for them.
    dist.destroy_process_group()


def _take_gpu(local_rank: int) -> None:
    n_gpus = torch.cuda.device_count()
    if local_rank >= n_gpus:
        raise UserError(
            f"Rank {local_rank} of this machine has no GPU: there are {n_gpus}. Start torchrun with "
            f"--nproc-per-node {n_gpus}, or set device=cpu."
        )
    torch.cuda.set_device(local_rank)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Draw no progress bars, the host's included; what TQDM_DISABLE would do had it been set before tqdm's import."""
    drawing = tqdm.__init__
    tqdm.__init__ = partialmethod(drawing, disable=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        tqdm.__init__ = drawing


@contextmanager
def all_ranks() -> Iterator[None]:
    """Wait for all ranks; what the library at work raises if one does not come becomes `LostRankError`."""
    try:
        yield
    except RuntimeError as error:
        number = os.environ.get("RANK", "?") if not dist.is_initialized() else dist.get_rank()
        # gloo begins with the place in its own source, and ends with advice.
        reason = re.sub(r"^\[[^]]*\] *", "", first_line(error)).split(". ")[0].rstrip(".")
        raise LostRankError(
            f"Rank {number} cannot reach another rank any more ({reason}): that one was killed, has failed or is "
            "stuck. The training stops. Run the same command again, and it goes on from its last checkpoint."
        ) from error
