"""The file of a sweep: which runs, which values and seeds, and what each job may take."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator, model_validator

from sae_lens_contrastive.config import StrictModel, distinct_seeds, load_yaml, merge, parse_config
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.models import device_type
from sae_lens_contrastive.search.spec import Dimension, Value, check_can_be_varied, parse_space, with_values
from sae_lens_contrastive.training import RunConfig, resolve_runs
from sae_lens_contrastive.unlearning import EvalSpec, check_spec
from sae_lens_contrastive.unlearning.spec import EvalInputs

_LONGEST_NAME = 100


class Resources(StrictModel):
    """What one job takes of a cluster."""

    num_cpus: float = Field(default=1, gt=0)
    """CPU cores; a job computes with as many threads, in whole numbers and at least one, wherever it runs."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs, or the share of one."""


class SweptSearch(StrictModel):
    """A search with NSGA-II, as the command `search` makes it, with the trials of a generation at once."""

    space: dict[str, dict[str, Any]] = Field(min_length=1)
    """Dotted key of the run: {low, high, log, int} or {choices}. Every value must be possible while the other keys are
    as in the run."""
    n_trials: PositiveInt = 40
    """Trials in all; raise it to continue a finished search."""
    population_size: int = Field(default=8, ge=2)
    """Trials in one generation, and the most that run at once for each seed; the first generation is random."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search; those of the runs are `seeds`."""


class SweepSpec(StrictModel):
    """A sweep: many jobs, each of which trains one SAE and evaluates it."""

    target: str
    """Target of the runs; a path is relative to the file of the sweep."""
    variants: list[str] = Field(min_length=1)
    """Variants of the runs, relative to the file of the sweep; a search has one."""
    spec: str
    """Specification of the evaluation, relative to the file of the sweep."""
    grid: dict[str, list[Value]] = Field(default_factory=dict)
    """Dotted key of the run: its values. Every variant is trained with every combination."""
    search: SweptSearch | None = None
    """A search, in place of a grid."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds; every trial is a job with each. A search is told the mean over them."""
    resources: Resources = Resources()
    """What one job takes of a cluster."""
    retries: int = Field(default=2, ge=0)
    """How often a job is begun again after a failure that another attempt may not meet: a lost node, a process that
    died. An error in the input is final at once."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys of the runs to change, nested as in a target."""
    spec_overrides: dict[str, Any] = Field(default_factory=dict)
    """Keys of the specification to change."""

    _seeds_are_distinct = field_validator("seeds")(distinct_seeds)

    @field_validator("grid")
    @classmethod
    def _has_distinct_values(cls, grid: dict[str, list[Value]]) -> dict[str, list[Value]]:
        for key, values in grid.items():
            if not values or len({(isinstance(value, bool), value) for value in values}) < len(values):
                raise ConfigError(f"{key} needs one value or more, each once, got {values}.")
        return grid

    @model_validator(mode="after")
    def _is_a_grid_or_a_search(self) -> SweepSpec:
        if self.search is not None and (self.grid or len(self.variants) > 1):
            raise ConfigError("a search has one variant and no grid. Take out search, or grid and further variants.")
        return self


@dataclass(frozen=True)
class Trial:
    """A variant with values of the varied keys; with each seed it is a job."""

    number: int
    """From 0, in the order of the grid or of the search."""
    params: dict[str, Value]
    """Values of the varied keys, with the variant where there are several."""
    runs: tuple[RunConfig, ...]
    """Its runs, one for each seed."""


@dataclass(frozen=True)
class Sweep:
    """A sweep with everything it names read and checked."""

    bases: tuple[RunConfig, ...]
    """The runs before anything is varied, one for each variant."""
    spec: EvalSpec
    """The evaluation."""
    inputs: EvalInputs
    """Its questions and texts."""
    grid: tuple[Trial, ...]
    """Every variant with every combination of the varied keys; of a search there are none."""
    search: SweptSearch | None
    """The search, if there is one."""
    space: Mapping[str, Dimension]
    """What a search varies."""
    seeds: tuple[int, ...]
    """Seeds of the runs."""
    resources: Resources
    """What one job takes."""
    retries: int
    """Further attempts at a job that failed."""

    def identity(self) -> dict[str, Any]:
        """What two sweeps must share for one to continue the other.

        A grid may grow, by values, seeds or variants: its jobs depend on nothing else. What a search proposes depends
        on all but the number of trials.
        """
        evaluation = {"spec": self.spec.model_dump(mode="json"), "spec_sha256": self.inputs.digest}
        if self.search is None:
            return {**evaluation, "search": None}
        return {
            **evaluation,
            "search": {
                **self.search.model_dump(mode="json", exclude={"n_trials"}),
                "run": self.bases[0].model_dump(mode="json"),
                "seeds": list(self.seeds),
            },
        }

    def searched_trial(self, number: int, values: Mapping[str, Value]) -> Trial:
        """A trial that a search proposes; `UserError` for an impossible combination."""
        name, _ = _name_of(self.bases[0].variant, values)
        return _trial(number, self.bases[0], f"{number:03d}_{name}", values, self.seeds)


def resolve_sweep(path: Path | str, overrides: Mapping[str, Any] | None = None, *, any_device: bool = False) -> Sweep:
    """Read the file of a sweep, apply overrides, and check every job of a grid and every end of a search's ranges.

    With `any_device` the device need not be on this machine. Raises `UserError` for a missing file, an unknown key of
    the sweep or of a run, or a value that a run cannot have.
    """
    path = Path(path)
    given = parse_config(SweepSpec, merge(load_yaml(path), overrides or {}), str(path))
    near = path.parent
    variants = [near / variant for variant in given.variants]
    bases = resolve_runs(near / given.target, variants, given.overrides, any_device=any_device)
    if given.resources.num_gpus == 0 and any(device_type(base.device) == "cuda" for base in bases):
        raise ConfigError(f"{path}: the runs are on {bases[0].device}, but resources.num_gpus is 0. Set it, such as 1.")
    for key in given.grid:
        check_can_be_varied([key], f"{path}: grid")
        if key == "seed":
            raise ConfigError(f"{path}: grid.seed: seeds have a key of their own, seeds.")
    space = {}
    if given.search is not None:
        space = parse_space(bases[0], given.search.space, f"{path}: search.space", any_device=any_device)
        if "seed" in space:
            raise ConfigError(f"{path}: search.space.seed: seeds have a key of their own, seeds.")
    spec_path = near / given.spec
    spec = parse_config(EvalSpec, merge(load_yaml(spec_path), given.spec_overrides), str(spec_path))
    return Sweep(
        bases=tuple(bases),
        spec=spec,
        inputs=check_spec(spec, any_device=any_device),
        grid=() if given.search else tuple(_grid(bases, given.grid, given.seeds, f"{path}: grid")),
        search=given.search,
        space=space,
        seeds=tuple(given.seeds),
        resources=given.resources,
        retries=given.retries,
    )


def _grid(
    bases: Sequence[RunConfig], grid: Mapping[str, Sequence[Value]], seeds: Sequence[int], source: str
) -> Iterator[Trial]:
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for number, (base, values) in enumerate(itertools.product(bases, combinations)):
        name, is_exact = _name_of(base.variant, values)
        if not is_exact:
            digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
            name = f"{name}_{digest[:8]}"
        try:
            trial = _trial(number, base, name, values, seeds)
        except UserError as error:
            said = ", ".join(f"{key} = {value}" for key, value in values.items())
            raise ConfigError(f"{source}: {base.variant} with {said}: {error}") from None
        yield replace(trial, params={"variant": base.variant, **values}) if len(bases) > 1 else trial


def _trial(number: int, base: RunConfig, name: str, values: Mapping[str, Value], seeds: Sequence[int]) -> Trial:
    # The device was looked at when the base was resolved.
    run = with_values(base, {**values, "variant": name}, any_device=True)
    return Trial(number, dict(values), tuple(run.model_copy(update={"seed": seed}) for seed in seeds))


def _name_of(variant: str, values: Mapping[str, Value]) -> tuple[str, bool]:
    """Name of a run and its folder, such as `contrastive_k-16_coefficient-3`, and whether no other values have it."""
    said = [f"{key}-{_short(value)}" for key, value in zip(_short_keys(values), values.values(), strict=True)]
    whole = "_".join([variant, *said])
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", whole)[:_LONGEST_NAME]
    rounded = any(isinstance(value, float) and float(_short(value)) != value for value in values.values())
    return name, name == whole and not rounded


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short_keys(keys: Iterable[str]) -> list[str]:
    """The last parts of dotted keys, as many of each as tell them all apart."""
    parts = [key.split(".") for key in keys]
    for n_parts in range(1, max(map(len, parts), default=0)):
        short = [".".join(each[-n_parts:]) for each in parts]
        if len(set(short)) == len(short):
            return short
    return [".".join(each) for each in parts]
