"""Ranks: processes that train one SAE together. With one rank nothing here communicates or changes a number.

Every rank's loss is weighted by its share of the batch, and gradients are summed over ranks. A value that is made of
all ranks' tokens is the same on every rank, so in that sum its weights add up to 1; `whole_rows` and `whole_sum`
divide the gradient that they pass to a rank's own tokens by the weight, so that it counts once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partialmethod
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.errors import ConfigError, LostRankError, UserError, first_line

T = TypeVar("T")

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
    `wait_seconds` gives up. Only the first rank draws progress bars. Raises `UserError` if a machine has fewer GPUs than ranks, `LostRankError` if the ranks do
    not find each other.
    """
    if launched_ranks() == 1:
        yield
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        _take_gpu(int(os.environ["LOCAL_RANK"]))
    with _all_ranks():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(seconds=wait_seconds))
    with nullcontext() if is_first() else _without_bars():
        yield
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


@dataclass(frozen=True)
class BatchShare:
    """How the rows of a batch are divided among the ranks: in order, as evenly as can be."""

    bounds: tuple[int, ...]
    """Row at which each rank begins, and the number of rows."""

    @classmethod
    def of(cls, n_rows: int) -> BatchShare | None:
        """The division of so many rows, which every rank has in full; None with one rank.

        Raises `ConfigError` if a rank would have none.
        """
        n = n_ranks()
        if n == 1:
            return None
        if n_rows < n:
            raise ConfigError(
                f"A batch of {n_rows} tokens cannot be divided among {n} ranks. Raise train_batch_size_tokens, which is "
                "the total over ranks, or start fewer."
            )
        return cls(tuple(n_rows * i // n for i in range(n + 1)))

    @property
    def n_rows(self) -> int:
        """Rows of the whole batch."""
        return self.bounds[-1]

    @property
    def own(self) -> slice:
        """Rows of this rank."""
        return slice(self.bounds[rank()], self.bounds[rank() + 1])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each rank."""
        return tuple(end - start for start, end in pairwise(self.bounds))

    @property
    def weight(self) -> float:
        """Share of the rows that this rank has, in (0, 1]."""
        return self.sizes[rank()] / self.n_rows

    def spaced(self, stride: int) -> BatchShare:
        """How every `stride`-th row of the whole batch, from row 0 on, is divided."""
        return BatchShare(tuple(-(-bound // stride) for bound in self.bounds))

    def divided(self, places: Sequence[int]) -> tuple[list[int], list[int]]:
        """Which of some rows of the whole batch are this rank's, from its first row on, and how many each rank has."""
        start, end = self.own.start, self.own.stop
        counts = [sum(first <= place < last for place in places) for first, last in pairwise(self.bounds)]
        return [place - start for place in places if start <= place < end], counts


def summed(own: Tensor) -> Tensor:
    """Sum over ranks, without gradient; the same bits on every rank."""
    if n_ranks() == 1:
        return own
    return _reduced(own, dist.ReduceOp.SUM)


def least(own: Tensor) -> Tensor:
    """Minimum over ranks, without gradient."""
    return own if n_ranks() == 1 else _reduced(own, dist.ReduceOp.MIN)


def on_any_rank(flag: bool) -> bool:
    """Whether a flag is set on one of the ranks."""
    return flag if n_ranks() == 1 else bool(summed(torch.tensor(float(flag))) > 0)


def rows_of_all(own: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of all ranks, in their order, without gradient; `sizes` says how many each one gives."""
    if n_ranks() == 1:
        return own
    if (most := max(sizes)) == 0:
        return own
    sent = own.detach().contiguous()
    if len(own) < most:
        sent = torch.cat([sent, sent.new_zeros(most - len(own), *own.shape[1:])])
    gathered = sent.new_empty(len(sizes) * most, *own.shape[1:])
    with _all_ranks():
        dist.all_gather(list(gathered.chunk(len(sizes))), sent)
    if min(sizes) == most:
        return gathered
    return torch.cat([part[:size] for part, size in zip(gathered.split(most), sizes, strict=True)])


def row_counts(n_own: int) -> list[int]:
    """How many rows each rank has."""
    counts = torch.empty(n_ranks(), dtype=torch.int64)
    with _all_ranks():
        dist.all_gather(list(counts.chunk(len(counts))), torch.tensor([n_own]))
    return counts.tolist()


def whole_rows(own: Tensor, sizes: Sequence[int], weight: float) -> Tensor:
    """Rows of all ranks, in their order; the gradient reaches each rank's own rows, divided by its `weight`."""
    return _WholeRows.apply(own, sizes, weight)  # pyright: ignore[reportReturnType]


def whole_sum(own: Tensor, weight: float) -> Tensor:
    """Sum over ranks; the gradient reaches each rank's own summand, divided by its `weight`."""
    return _WholeSum.apply(own, weight)  # pyright: ignore[reportReturnType]


def add_up_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """From now on, sum the gradient of each parameter over ranks as soon as a backward pass has it.

    That is before the host clips, and before hooks that are registered later. Every rank's pass reaches the parameters
    in the same order: the order in which the encoder and the decoder first use them, backwards.
    """
    if n_ranks() == 1:
        return
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(_add_up)


def _add_up(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad = summed(parameter.grad)


def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have on the first rank."""
    if n_ranks() == 1:
        return
    for tensor in tensors:
        sent = tensor.detach().contiguous()
        with _all_ranks():
            dist.broadcast(sent, src=0)
        tensor.detach().copy_(sent)


def by_first(act: Callable[[], T]) -> T:
    """Let the first rank act, and return on every rank what came of it; a `UserError` is raised on every rank."""
    if n_ranks() == 1:
        return act()
    told: list[Any] = [None, None]
    error: Exception | None = None
    if is_first():
        try:
            told[0] = act()
        except Exception as raised:
            error = raised
            told[1] = str(raised) if isinstance(raised, UserError) else f"Rank 0 failed: {first_line(raised)}"
    with _all_ranks():
        dist.broadcast_object_list(told, src=0)
    if error is not None:
        raise error
    if told[1] is not None:
        raise UserError(told[1])
    return told[0]


def check_agreement(what: Mapping[str, Tensor]) -> None:
    """Raise `UserError`, naming the first that differs, unless tensors have the same bytes on every rank."""
    if n_ranks() == 1:
        return
    digests = {name: _digest(tensor) for name, tensor in what.items()}
    of_first = by_first(lambda: digests)
    differing = [name for name, digest in digests.items() if of_first.get(name) != digest]
    if on_any_rank(bool(differing)):
        raise UserError(
            f"The ranks do not agree any more{f', rank {rank()} in {differing[0]}' if differing else ''}. Start them on "
            "machines of one kind with the same package versions; the training goes on from its last checkpoint."
        )


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def _reduced(own: Tensor, operation: Any) -> Tensor:
    result = own.detach().clone(memory_format=torch.contiguous_format)
    with _all_ranks():
        dist.all_reduce(result, operation)
    return result


@contextmanager
def _all_ranks() -> Iterator[None]:
    """Wait for all ranks; what the library at work raises if one does not come becomes `LostRankError`."""
    try:
        yield
    except RuntimeError as error:
        number = os.environ.get("RANK", "?") if not dist.is_initialized() else dist.get_rank()
        raise LostRankError(
            f"Rank {number} cannot reach another rank any more: it was killed, failed, or is stuck. The training stops. "
            f"Run the same command again, and it goes on from its last checkpoint. ({first_line(error)})"
        ) from error


class _WholeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: Sequence[int], weight: float) -> Tensor:
        start = sum(sizes[: rank()])
        ctx.rows, ctx.weight = slice(start, start + sizes[rank()]), weight
        return rows_of_all(own, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "n *rest"]) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient[ctx.rows] / ctx.weight, None, None


class _WholeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return summed(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient / ctx.weight, None
