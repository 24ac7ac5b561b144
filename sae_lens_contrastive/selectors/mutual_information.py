"""Information-theoretic ranking: features whose firing tells most about which corpus a token is of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.feature_stats import MutualInformationTracker
from sae_lens_contrastive.selectors.base import (
    Selector,
    check_retain_threshold,
    ranked,
    register_selector,
    surviving,
)
from sae_lens_contrastive.selectors.statistics import Evidence


@register_selector("mutual_information")
@dataclass(frozen=True)
class MutualInformation(Selector):
    """Sort by the mutual information of "feature i fires" and "the token is of the forget corpus", in nats.

    From the 2x2 table of counts over the tokens of both corpora. Features with p_i(forget) <= p_i(retain) are dropped:
    they speak of retain text.
    """

    retain_threshold: float = 0.01
    """Features that fire on this share of retain tokens or more are dropped, in (0, 1]."""

    def __post_init__(self) -> None:
        check_retain_threshold(self.retain_threshold)

    @override
    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the surviving features, most informative first."""
        speaks_of_forget = evidence.forget.rate > evidence.retain.rate
        return ranked(information(evidence), surviving(evidence, self.retain_threshold) & speaks_of_forget)


def information(evidence: Evidence) -> Float64[Tensor, " d_sae"]:
    """Mutual information of firing and corpus, from 0 to ln 2 nats."""
    forget, retain = evidence.forget, evidence.retain
    tracker = MutualInformationTracker(len(forget.n_fired))
    tracker.load_state_dict(
        {
            "fired": torch.stack([retain.n_fired, forget.n_fired]),
            "tokens": torch.tensor([retain.n_tokens, forget.n_tokens]),
        }
    )
    return tracker.compute().double()
