"""What ranks tell each other, without gradient. With one rank each of these is the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sae_lens_contrastive.distributed.ranks import all_ranks, is_first, n_ranks, rank
from sae_lens_contrastive.errors import UserError, first_line

T = TypeVar("T")


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
    with all_ranks():
        dist.all_gather(list(gathered.chunk(len(sizes))), sent)
    if min(sizes) == most:
        return gathered
    return torch.cat([part[:size] for part, size in zip(gathered.split(most), sizes, strict=True)])


def row_counts(n_own: int) -> list[int]:
    """How many rows each rank has."""
    counts = torch.empty(n_ranks(), dtype=torch.int64)
    with all_ranks():
        dist.all_gather(list(counts.chunk(len(counts))), torch.tensor([n_own]))
    return counts.tolist()


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
        with all_ranks():
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
    with all_ranks():
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
            f"The ranks do not agree any more{f', rank {rank()} in {differing[0]}' if differing else ''}. Start them "
            "on machines of one kind with the same package versions; the training goes on from its last checkpoint."
        )


def _digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def _reduced(own: Tensor, operation: Any) -> Tensor:
    result = own.detach().clone(memory_format=torch.contiguous_format)
    with all_ranks():
        dist.all_reduce(result, operation)
    return result
