"""The file of a search: which keys of a run are varied, within which values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, model_validator

from sae_lens_contrastive.config import StrictModel, load_yaml, merge, parse_config
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.training import RunConfig, input_key, resolve_run
from sae_lens_contrastive.unlearning import EvalSpec, check_spec
from sae_lens_contrastive.unlearning.spec import EvalInputs

Value = bool | int | float | str | None
"""What a varied key can hold."""

# One model serves all trials, and a trial is named by its number.
_FIXED_KEYS = ("description", "device", "dtype", "model", "variant")


class Dimension(StrictModel):
    """Values that one key of the run may take: a range, or a list."""

    low: float | None = None
    """Smallest value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Draw the logarithm evenly: for values that span decades."""
    choices: tuple[Value, ...] = ()
    """Values to choose from, instead of a range."""
    # Last: the name hides the built-in one in what follows within the class.
    int: bool = False
    """Whether the values of a range are whole numbers."""

    @model_validator(mode="after")
    def _is_a_range_or_a_list(self) -> Dimension:
        if self.choices:
            if self.model_fields_set != {"choices"}:
                raise ValueError("give low and high, or choices; choices go alone.")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise ValueError(f"choices {list(self.choices)} repeat a value.")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices. Example: {low: 0.01, high: 1, log: true}")
        if not self.low < self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; low must be the smaller.")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; with log it must be above 0.")
        if self.int and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; with int both are whole numbers.")
        return self

    def samples(self) -> list[Value]:
        """Values that must be possible on their own: the ends of a range and one between, or every choice."""
        if self.choices:
            return list(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.int:
            return [round(self.low), round(self.high)]
        # The value between is not whole, as drawn ones are not.
        return [self.low, self.high, self.low + (self.high - self.low) / math.pi]


class SearchSpec(StrictModel):
    """A search: a run, an evaluation, and what is varied."""

    target: str
    """Target of the runs; a path is relative to the file of the search."""
    variant: str
    """Variant of the runs; a path is relative to the file of the search."""
    spec: str
    """Specification of the evaluation; a path is relative to the file of the search."""
    space: dict[str, dict[str, Any]] = Field(min_length=1)
    """Dotted key of the run: {low, high, log, int} or {choices}. Every value must be possible while the other keys are
    as in the run."""
    n_trials: PositiveInt = 40
    """SAEs trained in all; raise it to continue a finished search."""
    population_size: int = Field(default=8, ge=2)
    """Trials in one generation of NSGA-II; the first generation is random."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search; the seed of the runs is a key of the run."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys of the run to change, nested as in a target."""
    spec_overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys of the specification to change."""


@dataclass(frozen=True)
class Search:
    """A search with everything it names read and checked."""

    run: RunConfig
    """The run before anything is varied."""
    spec: EvalSpec
    """The evaluation."""
    inputs: EvalInputs
    """Its questions and texts."""
    space: dict[str, Dimension]
    """What is varied, by dotted key."""
    n_trials: int
    """SAEs trained in all."""
    population_size: int
    """Trials in one generation."""
    seed: int
    """Seed of the search."""

    def identity(self) -> dict[str, Any]:
        """What two searches must share for one to continue the other: all but the number of trials."""
        return {
            "run": self.run.model_dump(mode="json"),
            "run_inputs": input_key(self.run),
            "spec": self.spec.model_dump(mode="json"),
            "spec_sha256": self.inputs.digest,
            "space": {key: dimension.model_dump(mode="json") for key, dimension in self.space.items()},
            "population_size": self.population_size,
            "seed": self.seed,
        }


def resolve_search(path: Path | str, overrides: Mapping[str, Any] | None = None, *, any_device: bool = False) -> Search:
    """Read the file of a search, apply overrides, and check everything that needs no model.

    With `any_device` the device may be one that is not here, as for a plan.
    Raises `UserError` for a missing file, an unknown key of the search or of a run, an empty range or a value that the
    run cannot have.
    """
    path = Path(path)
    given = parse_config(SearchSpec, merge(load_yaml(path), overrides or {}), str(path))
    run = resolve_run(path.parent / given.target, path.parent / given.variant, given.overrides, any_device=any_device)
    space = parse_space(run, given.space, f"{path}: space", any_device=any_device)
    spec_path = path.parent / given.spec
    spec = parse_config(EvalSpec, merge(load_yaml(spec_path), given.spec_overrides), str(spec_path))
    return Search(
        run, spec, check_spec(spec, any_device=any_device), space, given.n_trials, given.population_size, given.seed
    )


def parse_space(
    run: RunConfig, space: Mapping[str, Mapping[str, Any]], source: str, *, any_device: bool = False
) -> dict[str, Dimension]:
    """What is varied, checked: every end and choice must be possible in the run while all else stays.

    With `any_device` the device need not be on this machine. Raises `UserError` for an empty range, a key that cannot
    be varied or a value that the run cannot have.
    """
    found = {key: parse_config(Dimension, values, f"{source}.{key}") for key, values in space.items()}
    check_can_be_varied(found, source)
    for key, dimension in found.items():
        _check_possible(run, key, dimension, f"{source}.{key}", any_device)
    return found


def check_can_be_varied(keys: Iterable[str], source: str) -> None:
    """`ConfigError` for a key that all trials share."""
    for key in keys:
        if key.split(".")[0] in _FIXED_KEYS:
            raise ConfigError(f"{source}.{key} cannot be varied; one model serves all trials. Put it in overrides.")


def with_values(run: RunConfig, values: Mapping[str, Any], *, any_device: bool = False) -> RunConfig:
    """The run with dotted keys set, checked; `UserError` for an unknown key or a value that does not fit."""
    layers = []
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        layers.append(value)
    changed = parse_config(RunConfig, merge(run.model_dump(), *layers), "run")
    (changed.model_copy(update={"device": "cpu"}) if any_device else changed).check()
    return changed


def _check_possible(run: RunConfig, key: str, dimension: Dimension, source: str, any_device: bool) -> None:
    for value in dimension.samples():
        try:
            with_values(run, {key: value}, any_device=any_device)
        except UserError as error:
            whole = re.search(r"\bint(eger)?\b", str(error)) and not dimension.choices
            hint = " For whole numbers add int: true." if whole else ""
            raise ConfigError(f"{source} = {value}: {error}{hint}") from None
