"""Pearson correlation of feature activations over a window of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError

_N_BINS = 8192
_BLOCK = 1024


class CorrelationBlock(NamedTuple):
    """Correlations of a block of features with all features that fired."""

    start: int
    """Place of the block's first row among the features that fired."""
    correlation: Float[Tensor, "block n_fired"]
    """Pearson correlations."""
    co_fired: Bool[Tensor, "block n_fired"]
    """Pairs that were active together on at least one token of the window."""


@dataclass(frozen=True)
class FeatureCorrelation:
    """Correlations of the features that fired and vary, computed block by block: C is never held as one square."""

    features: Int[Tensor, " n_fired"]
    """Feature index of each column."""
    unit: Float[Tensor, "n_tokens n_fired"]
    """Centred activations with columns of norm 1, so that C = unit^T unit."""
    fires: Float[Tensor, "n_tokens n_fired"]
    """1 where z > 0."""

    def blocks(self) -> Iterator[CorrelationBlock]:
        """Rows of C in blocks."""
        for start in range(0, len(self.features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            yield CorrelationBlock(start, self.unit[:, rows].T @ self.unit, (self.fires[:, rows].T @ self.fires) > 0)

    def among(self, columns: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
        """C restricted to the given columns."""
        part = self.unit[:, columns]
        return part.T @ part

    def threshold(self, percentile: float) -> float | None:
        """Adaptive threshold: the percentile of |C_ij| over i < j that co-fired, to 1/8192; None without such pairs."""
        counts = torch.zeros(_N_BINS, dtype=torch.float64)
        for block in self.blocks():
            columns = torch.arange(len(self.features), device=block.co_fired.device)
            rows = torch.arange(block.start, block.start + len(block.correlation), device=columns.device)
            pairs = block.co_fired & (rows[:, None] < columns[None, :])
            values = block.correlation[pairs].abs().clamp(max=1.0)
            counts += torch.histc(values.float(), bins=_N_BINS, min=0.0, max=1.0).double().cpu()
        n_pairs = float(counts.sum())
        if n_pairs == 0:
            return None
        cumulative = counts.cumsum(0)
        bin_index = int(torch.searchsorted(cumulative, percentile / 100 * n_pairs).clamp(max=_N_BINS - 1))
        return (bin_index + 0.5) / _N_BINS


class CorrelationTracker:
    """Streaming window of feature activations, sampled evenly from the batches it is shown.

    `update` keeps `tokens_per_update` rows of a batch; `compute` gives the correlations over the rows kept; `reset`
    starts the next window. Two trackers merge into the one that saw both streams.
    """

    def __init__(self, d_sae: int, tokens_per_update: int) -> None:
        if tokens_per_update < 1:
            raise ConfigError(f"tokens_per_update is {tokens_per_update}; it must be 1 or more tokens.")
        self.d_sae = d_sae
        self.tokens_per_update = tokens_per_update
        self._rows: list[Float[Tensor, "n d_sae"]] = []

    @torch.no_grad()
    def update(self, feature_acts: Float[Tensor, "batch d_sae"]) -> None:
        """Keep evenly spaced tokens of the batch, so that every domain in it is represented."""
        stride = max(1, len(feature_acts) // self.tokens_per_update)
        kept = feature_acts.detach()[::stride][: self.tokens_per_update]
        self._rows.append(kept.float().clone())

    @torch.no_grad()
    def compute(self) -> FeatureCorrelation | None:
        """Correlations over the window; None if fewer than two features vary in it."""
        if not self._rows:
            return None
        acts = torch.cat(self._rows)
        centred = acts - acts.mean(dim=0)
        norms = centred.norm(dim=0)
        # Rounding leaves a constant column with a tiny norm of its own scale.
        varies = norms > 1e-5 * acts.abs().amax(dim=0).clamp(min=1e-12) * len(acts) ** 0.5
        features = (varies & (acts > 0).any(dim=0)).nonzero().squeeze(1)
        if len(features) < 2:
            return None
        return FeatureCorrelation(
            features, centred[:, features] / norms[features], (acts[:, features] > 0).to(centred.dtype)
        )

    def merge(self, other: CorrelationTracker) -> None:
        """Add the other tracker's window to this one."""
        self._rows.extend(other._rows)

    def reset(self) -> None:
        """Start an empty window."""
        self._rows.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """The window as one tensor."""
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, self.d_sae)
        return {"window": rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a window over; `ConfigError` if it is of another dictionary."""
        window = state["window"]
        if window.ndim != 2 or window.shape[1] != self.d_sae:
            raise ConfigError(f"The saved window has shape {tuple(window.shape)}; this SAE has d_sae {self.d_sae}.")
        self._rows = [window] if len(window) else []
