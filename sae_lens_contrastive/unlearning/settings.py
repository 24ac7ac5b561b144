"""The settings of a sweep: every combination of a selector, a number of features and an intervention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.interventions import Intervention, intervention_class
from sae_lens_contrastive.options import build_options
from sae_lens_contrastive.selectors import Selector, selector_class

OptionValue = bool | int | float | str

Swept = Mapping[str, Mapping[str, Any]]
"""Options by registered name; an option is a value or a list of values to sweep."""


@dataclass(frozen=True)
class Choice:
    """A selector or an intervention with the options it was built from."""

    name: str
    """Registered name."""
    options: dict[str, OptionValue]
    """Options as given; those left out have their defaults."""
    built: Any
    """The selector or intervention."""


@dataclass(frozen=True)
class Setting:
    """One way to edit."""

    selector: Choice
    """Ranks the features."""
    n_features: int
    """How many of them are edited."""
    intervention: Choice
    """What is done to them."""


def selectors_of(swept: Swept) -> list[Choice]:
    """Every selector with every combination of its options; `ConfigError` for a wrong name or value."""
    return _choices("selectors", swept, selector_class)


def interventions_of(swept: Swept) -> list[Choice]:
    """Every intervention with every combination of its options; `ConfigError` for a wrong name or value."""
    return _choices("interventions", swept, intervention_class)


def all_settings(selectors: Swept, n_features: Sequence[int], interventions: Swept) -> list[Setting]:
    """All combinations, those that edit the same features one after another."""
    return [
        Setting(selector, n, intervention)
        for selector in selectors_of(selectors)
        for n in n_features
        for intervention in interventions_of(interventions)
    ]


def _choices(where: str, swept: Swept, class_of: Callable[[str], type[Any]]) -> list[Choice]:
    if not swept:
        raise ConfigError(f"{where} is empty. Name at least one.")
    choices = []
    for name, options in swept.items():
        built_class: type[Selector | Intervention] = class_of(name)
        values = [_values(f"{where}.{name}.{key}", value) for key, value in options.items()]
        for combination in product(*values):
            chosen = dict(zip(options, combination, strict=True))
            choices.append(Choice(name, chosen, build_options(f"{where}.{name}", built_class, chosen)))
    return choices


def _values(where: str, value: Any) -> list[OptionValue]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ConfigError(f"{where} is an empty list. Give a value, or values to sweep.")
    if len({repr(each) for each in values}) != len(values):
        raise ConfigError(f"{where} is {values}, which repeats a value. Each setting is tried once.")
    for each in values:
        if isinstance(each, float) and not math.isfinite(each):
            raise ConfigError(f"{where} is {each!r}; it must be finite.")
    return values
