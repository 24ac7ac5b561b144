"""Dataclasses from the plain mappings of a configuration, with names and types checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sae_lens_contrastive.errors import ConfigError, unknown_choice

T_OPTIONS = TypeVar("T_OPTIONS")


def build_options(where: str, options_class: type[T_OPTIONS], values: Mapping[str, Any]) -> T_OPTIONS:
    """Build a dataclass from plain values, with its field names and types checked; `ConfigError` says what is wrong."""
    declared = {field.name: field for field in fields(options_class)}  # pyright: ignore[reportArgumentType]
    types = get_type_hints(options_class)
    for key in values:
        if key not in declared:
            raise unknown_choice(f"key in {where}:", key, declared)
    for key, field in declared.items():
        if key not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{where} needs the key {key!r}.")
    checked = {key: checked_value(f"{where}.{key}", value, types[key]) for key, value in values.items()}
    return options_class(**checked)


def checked_value(where: str, value: Any, wanted: Any) -> Any:
    """Return `value` as the annotated type `wanted`; `ConfigError` if it is something else or not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} is {value!r}; it must be a finite number.")
    try:
        # Strict: "3" is no number and true is no integer, but 1 is a fine float.
        return TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError:
        name = wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")
        raise ConfigError(f"{where} is {value!r}; it must be of type {name}.") from None
