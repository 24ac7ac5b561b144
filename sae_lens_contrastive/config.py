"""Strict configurations from YAML: unknown keys are errors, and every error names the key, the value and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sae_lens_contrastive.errors import ConfigError, UserError, unknown_choice


class StrictModel(BaseModel):
    """Base of all run configurations: frozen, unknown keys forbidden, field docstrings as help texts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


def distinct_seeds(seeds: list[int]) -> list[int]:
    """Seeds as they are; `ConfigError` if one is there twice or below 0."""
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError(f"{seeds} must be distinct seeds of 0 or more.")
    return seeds


_MOST_YAML_NODES = 100_000
"""Values in a configuration, counted as often as aliases repeat them."""

T_CONFIG = TypeVar("T_CONFIG", bound=StrictModel)


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-3 is the number it looks like (YAML 1.2), not a string."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    """Text in which two escapes may make one character, as in JSON; one half of such a pair is an error."""
    return loader.construct_scalar(node).encode("utf-16", "surrogatepass").decode("utf-16")


_YamlLoader.add_constructor("tag:yaml.org,2002:str", _text)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping; `UserError` if the file is missing, empty or something else."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No file at {path}. Give the path of a YAML configuration; examples are in configs/.")
    try:
        content = _read_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, got {type(content).__name__}.")
    return content


def merge(base: Mapping[str, Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings from left to right: nested mappings merge, everything else is replaced."""
    merged = dict(base)
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def without_nulls(named: Any) -> Any:
    """A mapping by registered names without those set to null, by which an override takes one out."""
    return {key: value for key, value in named.items() if value is not None} if isinstance(named, Mapping) else named


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b=value` assignments into a nested mapping; values are read as YAML.

    Raises `ConfigError` for an assignment without `=` or with an empty key.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise ConfigError(f"--set takes key=value, got {assignment!r}. Example: --set training.lr=0.001")
        try:
            value = _read_yaml(text, assignment)
        except yaml.YAMLError:
            raise ConfigError(f"--set {assignment!r}: the value is not valid YAML. Quote it.") from None
        nested: Any = value
        for part in reversed(parts):
            nested = {part: nested}
        overrides = merge(overrides, nested)
    return overrides


def parse_config(config_class: type[T_CONFIG], values: Mapping[str, Any], source: str) -> T_CONFIG:
    """Build a configuration; `ConfigError` lists every wrong key with its value and what is allowed."""
    try:
        return config_class.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(config_class, details) for details in error.errors()]
        raise ConfigError(f"{source}: " + " ".join(problems)) from None


def _read_yaml(text: str, source: str) -> Any:
    """Content of a YAML document; `yaml.YAMLError`, which names `source`, for whatever is wrong with it."""
    try:
        loader = _YamlLoader(text)
        loader.name = source
        node = loader.get_single_node()
        if node is None:
            return None
        if _n_nodes(node, {}) > _MOST_YAML_NODES:
            raise yaml.YAMLError(f"it holds more than {_MOST_YAML_NODES} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or holds itself") from None
    # The library's own errors for a date, a number or a tag that is none.
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read ({error})") from None


def _n_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node; aliases of one that is a billion values long make a short text."""
    if id(node) not in known:
        children = node.value if isinstance(node.value, list) else []
        flat = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_n_nodes(each, known) for each in flat)
    return known[id(node)]


def _problem(config_class: type[StrictModel], details: Any) -> str:
    location = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return str(unknown_choice("key", location, _keys_beside(config_class, details["loc"])))
    if details["type"] == "missing":
        return f"The key {location!r} is missing."
    if details["type"] == "value_error":
        return f"{location + ': ' if location else ''}{details['ctx']['error']}"
    return f"{location}: {details['msg']}, got {details['input']!r}."


def _keys_beside(config_class: type[StrictModel], location: Sequence[int | str]) -> list[str]:
    inner: Any = config_class
    for part in location[:-1]:
        if _is_model(inner):
            field = inner.model_fields.get(str(part))
            inner = field.annotation if field else None
        else:
            inner = _held(inner)
        if type(None) in get_args(inner):
            inner = _held(inner)
    prefix = "".join(f"{part}." for part in location[:-1])
    return [prefix + name for name in inner.model_fields] if _is_model(inner) else list(config_class.model_fields)


def _held(annotation: Any) -> Any:
    """What a list, a dictionary or `| None` is of."""
    return next((each for each in get_args(annotation) if each not in (int, str, type(None))), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, StrictModel)
