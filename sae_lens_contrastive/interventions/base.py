"""What an intervention is: new activations of the selected features from the present ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.registry import T_REGISTERED, Registry


@dataclass(frozen=True, eq=False)
class TokenTable:
    """What an intervention may know of the tokens whose activations it gets, beside the activations."""

    prompt: Int[Tensor, " n_tokens"]
    """Prompt, or context of a corpus, that each token belongs to: 0 or more."""
    counts: Bool[Tensor, " n_tokens"]
    """Whether the token has a say in whether its prompt is edited: of a question its stem, not its options."""


class Intervention(Protocol):
    """New activations of the selected features from the present ones, on editable tokens only.

    A subclass is a frozen dataclass registered under a name; its fields are its options in a specification.
    """

    needs_retain_text: ClassVar[bool] = False
    """Whether it must be `fitted` before it is called."""

    def __call__(
        self, acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable, /
    ) -> Float[Tensor, "n_tokens n_selected"]:
        """Return the activations to write."""
        ...

    def fitted(self, acts: Float[Tensor, "n_tokens n_selected"], tokens: TokenTable, /) -> Intervention:  # noqa: ARG002
        """Return the intervention for these selected features, given their activations on retain text.

        Where nothing depends on retain text that is the intervention itself.
        """
        return self


INTERVENTIONS = Registry("intervention")
"""Interventions by the names that specifications use."""


def register_intervention(name: str) -> Callable[[T_REGISTERED], T_REGISTERED]:
    """Register an intervention class under `name`; `ValueError` if the name is taken by another class."""
    return INTERVENTIONS.register(name)


def intervention_class(name: str) -> type[Any]:
    """Class registered under `name`; `ConfigError` for an unknown one."""
    return INTERVENTIONS.named(name)


def check_multiplier(multiplier: float) -> None:
    """Raise `ConfigError` unless a feature can be set to minus this activation."""
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise ConfigError(f"multiplier is {multiplier!r}. Give a positive number such as 20.")
