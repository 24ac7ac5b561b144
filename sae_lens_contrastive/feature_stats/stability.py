"""How much the dictionary still changes: decoder rows, groups and importances against the time before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import normalize

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats.blocks import row_blocks

_NO_GROUP = -1


@dataclass(frozen=True)
class StabilityOptions:
    """How often the features are compared with themselves: the `stability` section of a variant."""

    every_n_steps: int = 100
    """Training steps between two comparisons."""

    def __post_init__(self) -> None:
        if self.every_n_steps < 1:
            raise ConfigError(f"stability.every_n_steps is {self.every_n_steps}; it must be 1 or more.")


@dataclass(frozen=True)
class Stability:
    """Features compared with themselves at the update before."""

    decoder_cosine_mean: float
    """Mean over features of the cosine of a decoder row with itself."""
    decoder_cosine_p5: float
    """Their 5th percentile."""
    adjusted_rand_index: float | None
    """Agreement of the two clusterings (Hubert and Arabie 1985) on the features that are in both; None if under two."""
    importance_spearman: float | None
    """Rank correlation of the two importances; None if one is missing or constant."""


class StabilityTracker:
    """Keeps the last decoder directions (16 bits a weight), groups and importances, and compares the next with them."""

    def __init__(self) -> None:
        self._last: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(
        self,
        W_dec: Float[Tensor, "d_sae d_in"],
        groups: Sequence[Int[Tensor, " size"]] | None = None,
        importance: Float[Tensor, " d_sae"] | None = None,
    ) -> Stability | None:
        """Compare with the update before and keep the new state; None the first time.

        Raises `ConfigError` if the update before was of another dictionary.
        """
        if self._last and self._last["directions"].shape != W_dec.shape:
            old, new = tuple(self._last["directions"].shape), tuple(W_dec.shape)
            raise ConfigError(f"The directions to compare with have the shape {old}; this SAE has {new}.")
        directions, cosine = _turned(W_dec.detach(), self._last.get("directions"))
        current = {"directions": directions}
        if groups is not None:
            current["labels"] = _labels(groups, len(W_dec))
        if importance is not None:
            current["importance"] = importance.detach().float().clone()
        compared = None if cosine is None else _compare(cosine, self._last, current)
        self._last = current
        return compared

    def state_dict(self) -> dict[str, Tensor]:
        """What the next update is compared with."""
        return dict(self._last)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self._last = dict(state)


def _turned(
    W_dec: Float[Tensor, "d_sae d_in"], before: Float[Tensor, "d_sae d_in"] | None
) -> tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, " d_sae"] | None]:
    """Directions of the rows in 16 bits, and their cosines with those before."""
    directions = torch.empty_like(W_dec, dtype=torch.float16)
    cosine = None if before is None else W_dec.new_empty(len(W_dec), dtype=torch.float32)
    for rows in row_blocks(*W_dec.shape):
        new = normalize(W_dec[rows].float(), dim=1)
        if before is not None and cosine is not None:
            # Scaled to norm 1 again: rounding to 16 bits then costs about 1e-7 of a cosine.
            cosine[rows] = (normalize(before[rows].float(), dim=1) * new).sum(dim=1)
        directions[rows] = new
    return directions, cosine


def _compare(cosine: Float[Tensor, " d_sae"], last: dict[str, Tensor], new: dict[str, Tensor]) -> Stability:
    labels, importances = ([state[name] for state in (last, new) if name in state] for name in ("labels", "importance"))
    return Stability(
        decoder_cosine_mean=float(cosine.mean()),
        decoder_cosine_p5=float(cosine.quantile(0.05)),
        adjusted_rand_index=_rand_index(*labels) if len(labels) == 2 else None,
        importance_spearman=_spearman(*importances) if len(importances) == 2 else None,
    )


def _labels(groups: Sequence[Int[Tensor, " size"]], d_sae: int) -> Int[Tensor, " d_sae"]:
    labels = torch.full((d_sae,), _NO_GROUP)
    for label, group in enumerate(groups):
        labels[group.cpu()] = label
    return labels


def _rand_index(last: Int[Tensor, " d_sae"], new: Int[Tensor, " d_sae"]) -> float | None:
    last, new = last.cpu(), new.cpu()
    in_both = (last != _NO_GROUP) & (new != _NO_GROUP)
    if in_both.sum() < 2:
        return None
    return float(adjusted_rand_score(last[in_both].numpy(), new[in_both].numpy()))


def _spearman(last: Float[Tensor, " d_sae"], new: Float[Tensor, " d_sae"]) -> float | None:
    if (last == last[0]).all() or (new == new[0]).all():
        return None
    return float(spearmanr(last.cpu().numpy(), new.cpu().numpy()).statistic)  # pyright: ignore[reportAttributeAccessIssue]
