"""Unlearning objectives: what the edited model should say on forget text.

An objective is a registered frozen dataclass called with the predictions on forget text. All of them are 0 where
nothing is left to unlearn and above 0 everywhere else, so that none can run away as plain gradient ascent does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import relu, softplus

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.options import build_options
from sae_lens_contrastive.registry import T_REGISTERED, Registry


class ForgetPredictions(NamedTuple):
    """Next-token distributions at the positions of forget text that count, as log-probabilities in float32."""

    edited: Float[Tensor, "n d_vocab"]
    """log p_edited, with the gradient."""
    targets: Int[Tensor, " n"]
    """The tokens that follow in the text."""
    reference: Float[Tensor, " d_vocab"] | None
    """log p_ref: the unedited model's mean distribution over retain text, which knows nothing of the prompt; None
    unless the objective's `needs_reference`."""
    model: Float[Tensor, "n d_vocab"] | None
    """log p_model of the unedited model; None unless the objective's `needs_model`."""


class UnlearningObjective(ABC):
    """How far the edited model is from having unlearned, in nats; lower is more unlearned."""

    needs_model: ClassVar[bool] = False
    """Whether it reads the unedited model's predictions on forget text, which take another run of the model."""
    needs_reference: ClassVar[bool] = False
    """Whether it reads the unedited model's mean prediction on retain text, which takes another run of the model."""

    @abstractmethod
    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Mean over positions."""


OBJECTIVES = Registry("objective")
"""Unlearning objectives by the names that configurations use."""


def register_objective(name: str) -> Callable[[T_REGISTERED], T_REGISTERED]:
    """Register an unlearning objective class under `name`; `ValueError` if the name is taken by another class."""
    return OBJECTIVES.register(name)


def build_objective(name: str, options: Mapping[str, Any]) -> UnlearningObjective:
    """Build the objective registered under `name`; `ConfigError` for an unknown name, key or type."""
    return build_options(f"objective_options of {name!r}", OBJECTIVES.named(name), options)


@register_objective("uniform")
@dataclass(frozen=True)
class Uniform(UnlearningObjective):
    """Know nothing at all: L = mean over positions of KL(u || p_edited), u uniform over the vocabulary.

    0 at the uniform distribution. Every word is raised, the rarest most: it punishes what the model rules out.
    """

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """-log V - mean over positions and words of log p_edited."""
        return -math.log(said.edited.shape[1]) - said.edited.mean()


@register_objective("reference")
@dataclass(frozen=True)
class Reference(UnlearningObjective):
    """Say what one says without knowing the prompt: L = mean over positions of KL(p_ref || p_edited).

    p_ref is the unedited model's mean next-token distribution over retain text. 0 where the edited model says p_ref.
    Keeps the frequencies of words, so it is milder than the uniform distribution.
    """

    needs_reference = True

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Sum over words of p_ref (log p_ref - mean over positions of log p_edited)."""
        assert said.reference is not None
        return (said.reference.exp() * (said.reference - said.edited.mean(dim=0))).sum()


@register_objective("npo")
@dataclass(frozen=True)
class NegativePreference(UnlearningObjective):
    """Prefer anything to the text: L = 2/beta * mean over positions of log(1 + (p_edited(y) / p_model(y))^beta).

    y is the token that follows in the text. 2 log(2) / beta at the unedited model, towards 0 as the tokens become
    unlikely, with a gradient that fades alike; beta to 0 is gradient ascent. Source: Zhang et al. 2024, "Negative
    preference optimization", equation 3, with each next token as a response instead of the whole continuation.
    """

    beta: float = 0.1
    """Inverse temperature: how soon a token counts as unlearned, as a power of its probability ratio."""

    needs_model = True

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ConfigError(f"objective_options.beta is {self.beta}; it must be above 0.")

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Softplus of the scaled log-ratio."""
        assert said.model is not None
        log_ratio = _of_targets(said.edited, said.targets) - _of_targets(said.model, said.targets)
        return 2 / self.beta * softplus(self.beta * log_ratio).mean()


@register_objective("entropy")
@dataclass(frozen=True)
class Entropy(UnlearningObjective):
    """Be undecided: L = log V - mean over positions of H(p_edited) = mean of KL(p_edited || u).

    0 at the uniform distribution. Weighs each word by its own probability, so it lowers what the model is sure of and
    leaves rare words alone.
    """

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Entropy that is missing to the highest possible."""
        entropy = -(said.edited.exp() * said.edited).sum(dim=1)
        return math.log(said.edited.shape[1]) - entropy.mean()


@register_objective("bounded_loss")
@dataclass(frozen=True)
class BoundedLoss(UnlearningObjective):
    """Fail at the text, up to a bound: L = max(0, bound - mean over positions of -log p_edited(y)).

    y is the token that follows in the text. Gradient ascent on the next-token loss that ends at `bound` nats per
    token; 0 from there on. Unlike the others it says nothing of what the model should say instead.
    """

    bound: float = 8.0
    """Next-token loss on forget text to reach, in nats per token; guessing among V words costs log V."""

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise ConfigError(f"objective_options.bound is {self.bound}; it must be above 0.")

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Hinge on the mean loss."""
        return relu(self.bound + _of_targets(said.edited, said.targets).mean())


@register_objective("bounded_token_loss")
@dataclass(frozen=True)
class BoundedTokenLoss(BoundedLoss):
    """Fail at every token of the text, up to a bound: L = mean over positions of max(0, bound + log p_edited(y)).

    y is the token that follows in the text. A token that is far beyond the bound makes up for no other one, which it
    does in the mean loss.
    """

    def __call__(self, said: ForgetPredictions) -> Float[Tensor, ""]:
        """Mean hinge on the loss of each token."""
        return relu(self.bound + _of_targets(said.edited, said.targets)).mean()


def _of_targets(log_probs: Float[Tensor, "n d_vocab"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    return log_probs.gather(1, targets[:, None]).squeeze(1)
