"""How much a feature matters: its activation, its effect on the loss, its information about the forget domain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.errors import ConfigError

_WEIGHTS = ("activation_weight", "gradient_weight", "mutual_information_weight")


@dataclass(frozen=True)
class ImportanceOptions:
    """What importance is made of and how often it is measured: the `importance` section of a variant."""

    activation_weight: float = 0.4
    """w_a, share of the mean activation; the three weights sum to 1."""
    gradient_weight: float = 0.6
    """w_g, share of the mean |dL/dz_i * z_i|."""
    mutual_information_weight: float = 0.0
    """w_m, share of the mutual information of firing and the forget domain."""
    memory: float = 0.9
    """Share of the old importance that a new measurement keeps, in [0, 1)."""
    every_n_steps: int = 50
    """Training steps between two measurements."""

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in _WEIGHTS}
        listed = ", ".join(f"{name} {value}" for name, value in weights.items())
        if min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
            raise ConfigError(
                f"importance has {listed}; each must be 0 or more and their sum 1, it is {sum(weights.values()):.6g}."
            )
        if not 0 <= self.memory < 1:
            raise ConfigError(f"importance.memory is {self.memory}; it must be in [0, 1).")
        if self.every_n_steps < 1:
            raise ConfigError(f"importance.every_n_steps is {self.every_n_steps}; it must be 1 or more.")


class ImportanceTracker:
    """Exponential average of the weighted raw statistics of each feature, every statistic scaled by its maximum.

    I <- memory * I + (1 - memory) * (w_a a/max(a) + w_g g/max(g) + w_m m/max(m)), a scaled statistic being 0 where its
    maximum is. The first measurement is taken as it is, so that importance does not have to climb from 0. `update`
    collects raw statistics, their mean is one measurement when `step` closes it. Two trackers that collected on two
    streams merge, before `step`, into the one that saw both.
    """

    def __init__(self, d_sae: int, options: ImportanceOptions) -> None:
        self.d_sae = d_sae
        self.options = options
        self._importance: Float[Tensor, " d_sae"] | None = None
        self._sums = torch.zeros(3, d_sae)
        self._n_updates = 0

    @torch.no_grad()
    def update(
        self,
        mean_activation: Float[Tensor, " d_sae"],
        gradient_attribution: Float[Tensor, " d_sae"] | None = None,
        mutual_information: Float[Tensor, " d_sae"] | None = None,
    ) -> None:
        """Collect statistics of one batch; one whose weight is 0 may be left out."""
        given = zip(_WEIGHTS, (mean_activation, gradient_attribution, mutual_information), strict=True)
        for name, statistic in given:
            if statistic is None and getattr(self.options, name) > 0:
                raise ConfigError(f"importance.{name} is above 0, but that statistic is not given.")
        zeros = torch.zeros_like(mean_activation)
        raw = [mean_activation] + [zeros if one is None else one for one in (gradient_attribution, mutual_information)]
        self._sums = self._sums.to(zeros.device) + torch.stack([statistic.float() for statistic in raw])
        self._n_updates += 1

    @torch.no_grad()
    def step(self) -> None:
        """Close a measurement: the mean of what was collected enters the importance; nothing if there is none."""
        if self._n_updates == 0:
            return
        raw = self._sums / self._n_updates
        maximum = raw.amax(dim=1, keepdim=True)
        scaled = raw / maximum.where(maximum > 0, 1)
        weights = raw.new_tensor([getattr(self.options, name) for name in _WEIGHTS])
        measured = weights @ scaled
        memory = self.options.memory
        old = self._importance
        self._importance = measured if old is None else memory * old + (1 - memory) * measured
        self._sums, self._n_updates = torch.zeros_like(self._sums), 0

    def compute(self) -> Float[Tensor, " d_sae"] | None:
        """Current importance of each feature, in [0, 1]; None before the first measurement."""
        return self._importance

    def resume_from(self, importance: Float[Tensor, " d_sae"]) -> None:
        """Continue from this importance, for example where replaced features were given another one."""
        self._check(len(importance))
        self._importance = importance

    def merge(self, other: ImportanceTracker) -> None:
        """Add what the other tracker collected for the measurement under way; past importance stays this one's."""
        self._check(other.d_sae)
        self._sums = self._sums + other._sums.to(self._sums.device)
        self._n_updates += other._n_updates

    def _check(self, d_sae: int) -> None:
        if d_sae != self.d_sae:
            raise ConfigError(f"The importance is of d_sae {d_sae}; this SAE has d_sae {self.d_sae}.")
