"""Pearson correlation of feature activations over a window of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int
from scipy.sparse import csr_array, vstack
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats.profiles import DENSE_SPEED, N_BINS, Profiles, profiles_of

_MAX_WORK = 2**23
_MIN_TOKENS = 256


@dataclass(frozen=True)
class FeatureCorrelation:
    """Correlations C of the features that fired and vary in a window, as one pass over them leaves them."""

    features: Int[Tensor, " n_fired"]
    """Feature index of each column."""
    profiles: Profiles
    """The columns, from which any part of C can be formed."""
    partner: Int[np.ndarray, " n_fired"]
    """Other column that correlates highest with each column."""
    partner_correlation: Float32[np.ndarray, " n_fired"]
    """Correlation with that column; of no meaning where it is not positive."""
    histogram: Float64[np.ndarray, " n_bins"]
    """Histogram of |C| over [0, 1]: ordered pairs of different features that fired together."""

    def percentiles(self, percents: Sequence[float]) -> list[float] | None:
        """Percentiles of |C_ij| over i < j that fired together, to 1/8192; None without such pairs.

        They are middles of bins, and so never 0.
        """
        cumulative = self.histogram.cumsum()
        if cumulative[-1] == 0:
            return None
        wanted = np.asarray(percents) / 100 * cumulative[-1]
        bins = np.minimum(np.searchsorted(cumulative, np.maximum(wanted, 1)), N_BINS - 1)
        return ((bins + 0.5) / N_BINS).tolist()

    def threshold(self, percentile: float) -> float | None:
        """Adaptive threshold tau: one of `percentiles`."""
        found = self.percentiles([percentile])
        return None if found is None else found[0]


class CorrelationTracker:
    """Streaming window of feature activations, sampled evenly from the batches it is shown.

    `update` keeps tokens of a batch, as sparse rows; `compute` gives the correlations over the tokens kept; `reset`
    starts the next window. Two trackers merge into the one that saw both streams.

    One pass over C costs about sum over tokens of min(L0², d_sae² / 1000) sparse multiply-adds. Of a window that would
    cost more than 2^23 of them, an eighth of a second on one CPU core, `compute` takes fewer tokens, evenly spaced, but
    not under 256. So 4096 tokens are used in full up to L0 45 at any width, and at any L0 up to d_sae 1400; 1024 tokens
    at L0 90; 256 tokens of a dense window from d_sae 5800 on. The window itself takes 8 bytes for every
    active entry.
    """

    def __init__(self, d_sae: int, tokens_per_update: int) -> None:
        if tokens_per_update < 1:
            raise ConfigError(f"tokens_per_update is {tokens_per_update}; it must be 1 or more tokens.")
        self.d_sae = d_sae
        self.tokens_per_update = tokens_per_update
        self._parts: list[csr_array] = []

    @torch.no_grad()
    def update(self, feature_acts: Float[Tensor, "batch d_sae"], n_tokens: int | None = None) -> None:
        """Keep evenly spaced tokens of the batch, so that every domain in it is represented.

        `n_tokens` of them, or `tokens_per_update`; all of a smaller batch.
        """
        n_tokens = min(self.tokens_per_update if n_tokens is None else n_tokens, len(feature_acts))
        if n_tokens < 1:
            return
        places = torch.arange(n_tokens) * len(feature_acts) // n_tokens
        kept = feature_acts.detach()[places].float().cpu().numpy()
        entries = np.flatnonzero(kept > 0)
        ends = np.searchsorted(entries, np.arange(n_tokens + 1) * self.d_sae)
        self._parts.append(_rows(kept.ravel()[entries], entries % self.d_sae, ends, self.d_sae))

    def compute(self) -> FeatureCorrelation | None:
        """Correlations over the window; None if fewer than two features vary in it."""
        window = self._bounded_window()
        if len(window.indptr) <= 2:
            return None
        features, profiles = profiles_of(window)
        if len(features) < 2:
            return None
        histogram = np.zeros(N_BINS)
        partner, correlation = profiles.nearest(np.arange(len(features)), histogram)
        return FeatureCorrelation(torch.from_numpy(features), profiles, partner, correlation, histogram)

    def merge(self, other: CorrelationTracker) -> None:
        """Add the other tracker's window to this one."""
        self._parts.extend(other._parts)

    def reset(self) -> None:
        """Start an empty window."""
        self._parts.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """The active entries of the window, token by token."""
        window = _stacked(self._parts, self.d_sae)
        return {
            "d_sae": torch.tensor(self.d_sae),
            "values": torch.from_numpy(window.data),
            "features": torch.from_numpy(window.indices),
            "n_active": torch.from_numpy(np.diff(window.indptr)),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a window over; `ConfigError` if it is of another dictionary."""
        if (d_sae := int(state["d_sae"])) != self.d_sae:
            raise ConfigError(f"The saved window has d_sae {d_sae}; this SAE has d_sae {self.d_sae}.")
        values, features, n_active = (state[name].cpu().numpy() for name in ("values", "features", "n_active"))
        ends = np.concatenate([[0], n_active.cumsum()])
        self._parts = [_rows(values, features, ends, self.d_sae)] if len(n_active) else []

    def _bounded_window(self) -> csr_array:
        n_active = np.concatenate([np.zeros(0), *(np.diff(part.indptr) for part in self._parts)])
        work = np.minimum(np.square(n_active), self.d_sae**2 / DENSE_SPEED).sum()
        if work <= _MAX_WORK:
            return _stacked(self._parts, self.d_sae)
        # Pick before stacking: a dense window and its copy would take twice the memory.
        n_kept = min(len(n_active), max(_MIN_TOKENS, int(len(n_active) * _MAX_WORK / work)))
        kept = np.arange(n_kept) * len(n_active) // n_kept
        n_tokens = [len(part.indptr) - 1 for part in self._parts]
        ends = np.cumsum(n_tokens)
        starts = ends - n_tokens
        picked = [
            part[kept[(kept >= start) & (kept < end)] - start]
            for part, start, end in zip(self._parts, starts, ends, strict=True)
        ]
        return _stacked(picked, self.d_sae)


def _rows(
    values: Float32[np.ndarray, " n_entries"],
    features: Int[np.ndarray, " n_entries"],
    ends: Int[np.ndarray, " n_ends"],
    d_sae: int,
) -> csr_array:
    return csr_array((values, features.astype(np.int32), ends.astype(np.int32)), shape=(len(ends) - 1, d_sae))


def _stacked(parts: list[csr_array], d_sae: int) -> csr_array:
    if not parts:
        return csr_array((0, d_sae), dtype=np.float32)
    return vstack(parts, format="csr")  # pyright: ignore[reportReturnType] - arrays stack to an array
