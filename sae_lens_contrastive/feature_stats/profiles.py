"""Activation profiles of features, or of clusters of features, and the correlations between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int
from scipy.sparse import csc_array, csr_array
from torch import Tensor

N_BINS = 8192
"""Bins of the histogram of |C| over [0, 1]."""
DENSE_SPEED = 1000
"""Multiply-adds of a dense product in the time of one of a sparse product; measured on two CPU cores."""
MAX_SQUARE = 3000
"""Columns whose C may be held as one square, 36 MB."""
_BLOCK_ENTRIES = 2**22
_HISTOGRAM_PAIRS = 2**26
_ABOVE_ONE = 8  # bins for |C| that rounding puts above 1
_NO_PRODUCT = 1e-6  # share of mean_i mean_j below which a sum of products is zero but for rounding
_NEARLY_CONSTANT = 1e-3


@dataclass(frozen=True)
class Profiles:
    """Columns over a window of tokens whose correlations are C = valuesᵀ values - mean meanᵀ.

    Activations are never negative, so two columns that are never active on the same token have C < 0, and they are not
    in the sparse product valuesᵀ values: what is in it are the pairs that fired together, exactly. The profile of a
    cluster is the mean of its features' profiles, and so C between clusters is the mean of C over their pairs.

    Products are made in blocks of rows, by dense matrices where that is faster; C is never held as one square.
    """

    values: csc_array
    """Activations over the norm of the column's deviations, [n_tokens, n], float32."""
    mean: Float32[np.ndarray, " n"]
    """Mean of each column of `values`, times sqrt(n_tokens)."""

    def __len__(self) -> int:
        return len(self.mean)

    @cached_property
    def by_token(self) -> csr_array:
        """`values` with its rows at hand."""
        return self.values.tocsr()

    @cached_property
    def by_column(self) -> csr_array:
        """The transpose of `values` with its rows at hand."""
        return self.values.T.tocsr()

    @cached_property
    def dense(self) -> Tensor | None:
        """`values` as a dense matrix with the mean as its last row, if dense products are faster."""
        n_active = np.diff(self.by_token.indptr).astype(np.float64)
        if np.square(n_active).sum() <= len(n_active) * len(self) ** 2 / DENSE_SPEED:
            return None
        return torch.from_numpy(np.concatenate([self.by_token.toarray(), self.mean[None]]))

    @cached_property
    def whole(self) -> Tensor | None:
        """C, if there are few columns and dense products are faster."""
        if self.dense is None or len(self) > MAX_SQUARE:
            return None
        return self._dense_rows(np.arange(len(self)))

    def nearest(
        self, rows: Int[np.ndarray, " n_rows"], histogram: Float64[np.ndarray, " n_bins"] | None = None
    ) -> tuple[Int[np.ndarray, " n_rows"], Float32[np.ndarray, " n_rows"]]:
        """For each row the other column with the highest correlation, and that correlation.

        Without a column of positive correlation, both have no meaning. `histogram` counts |C| of the rows with all
        other columns that they fired together with; where products of more than 8192 columns are dense, of every k-th
        row only, so that about 2^26 pairs are counted.
        """
        partner = np.empty(len(rows), dtype=np.int64)
        correlation = np.empty(len(rows), dtype=np.float32)
        step = max(1, _BLOCK_ENTRIES // max(1, len(self)))
        find = self._nearest_sparse if self.dense is None else self._nearest_dense
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            partner[block], correlation[block] = find(rows[block], histogram)
        return partner, correlation

    def _nearest_sparse(
        self, rows: Int[np.ndarray, " b"], histogram: Float64[np.ndarray, " n_bins"] | None
    ) -> tuple[Int[np.ndarray, " b"], Float32[np.ndarray, " b"]]:
        gram = self.by_column[rows] @ self.by_token
        n_pairs = np.diff(gram.indptr)
        place = np.repeat(np.arange(len(rows), dtype=np.int32), n_pairs)
        correlation = gram.data - np.repeat(self.mean[rows], n_pairs) * self.mean[gram.indices]
        own = np.flatnonzero(gram.indices == np.repeat(rows, n_pairs))
        if histogram is not None:
            bins = np.minimum(np.abs(correlation) * N_BINS, N_BINS - 1).astype(np.intp)
            histogram += np.bincount(bins, minlength=N_BINS) - np.bincount(bins[own], minlength=N_BINS)
        correlation[own] = -np.inf
        highest = np.maximum.reduceat(correlation, gram.indptr[:-1])
        hits = np.flatnonzero(correlation == np.repeat(highest, n_pairs))
        partner = np.full(len(rows), len(self))
        np.minimum.at(partner, place[hits], gram.indices[hits])
        return partner, highest

    def _nearest_dense(
        self, rows: Int[np.ndarray, " b"], histogram: Float64[np.ndarray, " n_bins"] | None
    ) -> tuple[Int[np.ndarray, " b"], Float32[np.ndarray, " b"]]:
        correlation = self._dense_rows(rows) if self.whole is None else self.whole[rows]
        correlation[torch.arange(len(rows)), torch.from_numpy(rows)] = -torch.inf
        highest, partner = correlation.max(dim=1)
        if histogram is not None:
            stride = -(-(len(self) ** 2) // _HISTOGRAM_PAIRS)
            mean = torch.from_numpy(self.mean)
            apart = torch.outer(mean[rows][::stride], mean).mul_(_NO_PRODUCT - 1)
            sample = correlation[::stride]
            sample = sample.masked_fill_(sample <= apart, torch.inf).abs_()
            top = 1 + _ABOVE_ONE / N_BINS
            counts = torch.histc(sample, bins=N_BINS + _ABOVE_ONE, min=0.0, max=top).double().numpy()
            histogram += counts[:N_BINS]
            histogram[-1] += counts[N_BINS:].sum()
        return partner.numpy(), highest.numpy()

    def _dense_rows(self, rows: Int[np.ndarray, " b"]) -> Tensor:
        assert self.dense is not None
        left = self.dense[:, rows]
        left[-1].neg_()
        return left.T @ self.dense

    def square(self, columns: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n n"]:
        """C among few columns; pairs that never fired together included."""
        if self.whole is not None:
            square = self.whole[columns][:, columns].numpy()
        else:
            part = self.select(columns)
            if part.dense is None:
                square = csr_array(part.by_column @ part.by_token).toarray()
                for start in range(0, len(part), 256):
                    square[start : start + 256] -= part.mean[start : start + 256, None] * part.mean
            else:
                square = part._dense_rows(np.arange(len(part))).numpy()
        # The two halves differ by rounding, which is enough to break ties differently from both sides.
        return (square + square.T) / 2

    def select(self, columns: Int[np.ndarray, " n"]) -> Profiles:
        """Some of the columns."""
        return Profiles(self.values[:, columns], self.mean[columns])

    def merged(self, label: Int[np.ndarray, " n"], weight: Float64[np.ndarray, " n"], n_clusters: int) -> Profiles:
        """Sums of the columns with the same label, each times its weight."""
        share = weight.astype(np.float32)
        sums = csc_array((share, (np.arange(len(self)), label)), shape=(len(self), n_clusters))
        return Profiles(csc_array(self.values @ sums), np.bincount(label, share * self.mean).astype(np.float32))


def profiles_of(window: csr_array) -> tuple[Int[np.ndarray, " n_fired"], Profiles]:
    """Features that fired and vary in a window [n_tokens, d_sae] of activations, and their profiles.

    A feature whose standard deviation is below a thousandth of its maximum counts as constant. One that is active on
    every token is shifted close to its minimum, which leaves C as it is and keeps single precision enough.
    """
    n_tokens = len(window.indptr) - 1
    columns = window.tocsc()
    features = np.flatnonzero(np.diff(columns.indptr))
    columns = columns[:, features]
    n_active, starts = np.diff(columns.indptr), columns.indptr[:-1]
    if not len(features):
        return features, Profiles(columns, np.zeros(0, dtype=np.float32))
    highest = np.maximum.reduceat(columns.data, starts)
    lowest = np.minimum.reduceat(columns.data, starts)
    shift = np.where(n_active == n_tokens, (1 - _NEARLY_CONSTANT) * lowest, 0)
    data = columns.data - np.repeat(shift, n_active)
    total = np.add.reduceat(data, starts)
    norm = np.sqrt(np.maximum(np.add.reduceat(data * data, starts) - total**2 / n_tokens, 0))
    varies = np.flatnonzero(norm > _NEARLY_CONSTANT * np.sqrt(n_tokens) * highest)
    norm[norm == 0] = 1
    columns.data = (data / np.repeat(norm, n_active)).astype(np.float32)
    mean = (total / norm / np.sqrt(n_tokens)).astype(np.float32)
    return features[varies], Profiles(columns, mean).select(varies)
