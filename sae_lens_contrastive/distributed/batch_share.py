"""A batch that is divided among ranks, and what is made of all of it, with its gradient.

Every rank's loss is weighted by its share of the batch, and gradients are summed over ranks. A value that is made of
all ranks' tokens is the same on every rank, so in that sum its weights add up to 1; `whole_rows` and `whole_sum`
divide the gradient that they pass to a rank's own tokens by the weight, so that it counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.distributed.collectives import rows_of_all, summed
from sae_lens_contrastive.distributed.ranks import n_ranks, rank
from sae_lens_contrastive.errors import ConfigError


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
                f"A batch of {n_rows} tokens cannot be divided among {n} ranks. Raise train_batch_size_tokens, which "
                "is the total over ranks, or start fewer."
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


def whole_rows(own: Tensor, sizes: Sequence[int], weight: float) -> Tensor:
    """Rows of all ranks, in their order; the gradient reaches each rank's own rows, divided by its `weight`."""
    return _WholeRows.apply(own, sizes, weight)


def whole_sum(own: Tensor, weight: float) -> Tensor:
    """Sum over ranks; the gradient reaches each rank's own summand, divided by its `weight`."""
    return _WholeSum.apply(own, weight)


class _WholeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: Sequence[int], weight: float) -> Tensor:
        start = sum(sizes[: rank()])
        ctx.rows, ctx.weight = slice(start, start + sizes[rank()]), weight
        return rows_of_all(own, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "n ..."]) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # The gradient of a sample is sparse, and is not sliced.
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        return gradient[ctx.rows] / ctx.weight, None, None


class _WholeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return summed(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient / ctx.weight, None
