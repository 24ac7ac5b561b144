"""SAEBench's ranking: features silent on retain text, the one that fires most on forget text first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.selectors.base import Selector, check_retain_threshold, register_selector
from sae_lens_contrastive.selectors.statistics import CorpusStatistics, Evidence


@register_selector("firing_rate")
@dataclass(frozen=True)
class FiringRate(Selector):
    """Drop features with p_i(retain) >= retain_threshold, sort by p_i(forget) (Farrell et al. 2024).

    The order is SAEBench's to the last tie: it divides in 32 bits, passes rates through a file with six decimals and
    reverses numpy's sort. So do we; a feature whose rate on forget text rounds to 0.000000 does not survive.
    """

    retain_threshold: float = 0.01
    """Features that fire on this share of retain tokens or more are dropped, in (0, 1]."""

    def __post_init__(self) -> None:
        check_retain_threshold(self.retain_threshold)

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the surviving features, highest rate on forget text first."""
        forget = _written_rate(evidence.forget)
        forget[_written_rate(evidence.retain) >= self.retain_threshold] = 0
        order = forget.argsort()[::-1]
        return torch.from_numpy(order[: np.count_nonzero(forget)].astype(np.int64))


def _written_rate(statistics: CorpusStatistics) -> Float64[np.ndarray, " d_sae"]:
    """Firing rates as they come back from a file written with %f."""
    rates = statistics.n_fired.float() / statistics.n_tokens
    return np.array([float(f"{rate:f}") for rate in rates.tolist()])
