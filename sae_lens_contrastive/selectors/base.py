"""What a selector is, and what selectors share: the cut on retain text, and the order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.registry import T_REGISTERED, Registry
from sae_lens_contrastive.selectors.statistics import CorpusStatistics, Evidence


class Selector(Protocol):
    """A ranking of features by what they do on forget and on retain text.

    A subclass is a frozen dataclass registered under a name; its fields are its options in a specification.
    """

    needs_gradients: ClassVar[bool] = False
    """Whether it reads `CorpusStatistics.attribution`, which takes gradients of the model's loss."""

    def __call__(self, evidence: Evidence, /) -> Int64[Tensor, " n_surviving"]:
        """Return the features that survive, best first; none of them is silent on forget text."""
        ...


SELECTORS = Registry("selector")
"""Selectors by the names that specifications use."""


def register_selector(name: str) -> Callable[[T_REGISTERED], T_REGISTERED]:
    """Register a selector class under `name`; `ValueError` if the name is taken by another class."""
    return SELECTORS.register(name)


def selector_class(name: str) -> type[Any]:
    """Class registered under `name`; `ConfigError` for an unknown one."""
    return SELECTORS.named(name)


def check_retain_threshold(retain_threshold: float) -> None:
    """Raise `ConfigError` unless the threshold is a share of tokens that lets some feature through."""
    if not 0 < retain_threshold <= 1:
        raise ConfigError(f"retain_threshold is {retain_threshold!r}. Give a share of tokens in (0, 1], such as 0.01.")


def surviving(evidence: Evidence, retain_threshold: float) -> Bool[Tensor, " d_sae"]:
    """Features that fire on forget text, and on retain text below the threshold: p_i(retain) < retain_threshold."""
    return (evidence.forget.n_fired > 0) & (evidence.retain.rate < retain_threshold)


def ranked(score: Float64[Tensor, " d_sae"], survives: Bool[Tensor, " d_sae"]) -> Int64[Tensor, " n_surviving"]:
    """Return the surviving features, highest score first, ties by index."""
    order = score.argsort(descending=True, stable=True)
    return order[survives[order]]


def attribution_of(selector: str, statistics: CorpusStatistics) -> Float64[Tensor, " d_sae"]:
    """Attribution on a corpus; `ConfigError`, naming the selector, if the statistics were taken without gradients."""
    if statistics.attribution is None:
        raise ConfigError(
            f"The selector {selector} needs attributions, but the statistics have none. "
            "Give corpus_statistics the gradients of the loss at the hook."
        )
    return statistics.attribution
