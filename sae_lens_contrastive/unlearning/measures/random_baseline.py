"""Whether the chosen features forget more than random ones that fire as often on forget text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.forgetting import accuracy, forgetting

_DRAWS_AT_ONCE = 10

Right = tuple[Bool[Tensor, " n_forget"], Bool[Tensor, " n_retain"]]
"""Which known forget and retain questions are still answered right."""
Answer = Callable[[Sequence[tuple[int, ...]]], list[Right]]
"""The answers when each of these sets of features is edited."""


class RandomBaselineOptions(StrictModel):
    """How random features are drawn."""

    n_draws: PositiveInt = 20
    """Random sets of features, each evaluated once."""
    n_nearest: PositiveInt = 20
    """A chosen feature is replaced by one of this many whose firing rate on forget text is nearest to its own."""


class RandomBaselineResult(StrictModel):
    """The chosen features against random ones of the same firing rate, under the same intervention."""

    forget_accuracy: list[float]
    """Share of the known forget questions still answered right, for each draw."""
    mean_forget_accuracy: float
    """Mean over draws."""
    forgetting: float
    """Mean over draws of min(1, (1 - accuracy) / (1 - chance))."""
    mean_score: float
    """Mean over draws of 1 - accuracy where the draw keeps retain accuracy at the gate, and 0 where it does not: the
    unlearning score of each draw as the only setting."""
    highest_retain_loss: float
    """Largest share of the known retain questions that a draw made wrong."""
    p_value: float
    """(1 + number of draws with at most the accuracy of the chosen features) / (1 + number of draws)."""


def random_baseline(
    rate: Float[Tensor, " d_sae"],
    features: Sequence[int],
    answer: Answer,
    options: RandomBaselineOptions,
    *,
    forget_accuracy: float,
    chance: float,
    retain_gate: float,
    seed: int,
    title: str = "random features",
) -> RandomBaselineResult:
    """Evaluate random sets that fire on forget text at the rates of the chosen features.

    `rate` is the firing rate on forget text, `forget_accuracy` that of the chosen features, `chance` that of guessing,
    `retain_gate` the retain accuracy that a setting must keep to count.

    Raises `UserError` if the SAE has fewer other features than chosen ones.
    """
    draws = matched_features(rate, features, options, seed)
    forget, retain_loss = [], []
    with tqdm(total=len(draws), desc=title, unit="draw") as progress:
        for first in range(0, len(draws), _DRAWS_AT_ONCE):
            group = draws[first : first + _DRAWS_AT_ONCE]
            for forget_right, retain_right in answer(group):
                forget.append(accuracy(forget_right))
                retain_loss.append(1 - accuracy(retain_right))
            progress.update(len(group))
    return RandomBaselineResult(
        forget_accuracy=forget,
        mean_forget_accuracy=sum(forget) / len(forget),
        forgetting=sum(forgetting(each, chance) for each in forget) / len(forget),
        mean_score=sum(1 - each for each, loss in zip(forget, retain_loss, strict=True) if 1 - loss >= retain_gate)
        / len(forget),
        highest_retain_loss=max(retain_loss),
        p_value=(1 + sum(each <= forget_accuracy for each in forget)) / (1 + len(forget)),
    )


def matched_features(
    rate: Float[Tensor, " d_sae"], features: Sequence[int], options: RandomBaselineOptions, seed: int
) -> list[tuple[int, ...]]:
    """Random sets in which each chosen feature is replaced by another of nearly its firing rate.

    No set holds a chosen feature or one feature twice. Features that never fire are taken last: they would make an
    edit that does nothing.
    """
    rates = rate.double().cpu().numpy()
    others = np.setdiff1d(np.arange(len(rates)), np.asarray(features, dtype=int))
    if len(others) < len(features):
        raise UserError(
            f"A random baseline for {len(features)} features needs as many others; the SAE has {len(others)}. "
            "Select fewer features or switch the baseline off."
        )
    rng = np.random.default_rng(seed)
    # Enough candidates for each that the others of a set never use them up.
    n_candidates = options.n_nearest + len(features)
    silent = rates[others] == 0
    nearest = [
        others[np.lexsort((np.abs(rates[others] - rates[feature]), silent))][:n_candidates] for feature in features
    ]
    draws = []
    for _ in range(options.n_draws):
        drawn: list[int] = []
        for candidates in nearest:
            free = candidates[~np.isin(candidates, drawn)][: options.n_nearest]
            drawn.append(int(rng.choice(free)))
        draws.append(tuple(drawn))
    return draws
