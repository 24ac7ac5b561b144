"""A variant trained with several seeds: mean and interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student


@dataclass(frozen=True)
class Spread:
    """One number of a variant, for each of its seeds."""

    values: tuple[float, ...]
    """A value for each seed."""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(self.values)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the mean: the 97.5th percentile of Student's t with n - 1 degrees of freedom
        times s / sqrt(n), s with n - 1 in the denominator; infinite for one seed."""
        n = len(self.values)
        if n == 1:
            return math.inf
        return float(student.ppf(0.975, n - 1)) * stdev(self.values) / math.sqrt(n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        return self.mean - self.half_width, self.mean + self.half_width

    def text(self, number: str = "{:.3f}") -> str:
        """The mean ± half of its interval, which one seed does not have."""
        mean = number.format(self.mean)
        return mean if len(self.values) == 1 else f"{mean} ± {number.format(self.half_width)}"


def spread_by_step(series: Iterable[Mapping[int, float]]) -> dict[int, Spread]:
    """Combine a series for each seed, {step: value}, over the seeds that have the step."""
    values: dict[int, list[float]] = {}
    for seed in series:
        for step, value in seed.items():
            values.setdefault(step, []).append(value)
    return {step: Spread(tuple(values[step])) for step in sorted(values)}


def thinned(series: Mapping[int, float], most: int, *, keep_zeros: bool = True) -> dict[int, float]:
    """At most `most` points: means over equally many successive ones, each at the last step it covers.

    Without zeros, which stand for nothing measured, a mean is over the others, at the steps that it has with them.
    """
    steps = sorted(series)
    size = max(1, -(-len(steps) // most))
    parts = [steps[start : start + size] for start in range(0, len(steps), size)]
    values = {part[-1]: [series[step] for step in part if keep_zeros or series[step]] for part in parts}
    return {step: fmean(found) for step, found in values.items() if found}


def causes_of_zero(causes: Iterable[str | None]) -> str:
    """Why the score is 0, with the number of seeds a cause holds for if that is not all of them; empty if it is not."""
    causes = list(causes)
    named = [cause for cause in dict.fromkeys(causes) if cause]
    if len(named) == 1 and None not in causes:
        return named[0]
    return ", ".join(f"{cause} ({causes.count(cause)} of {len(causes)} seeds)" for cause in named)
