import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.options import build_options, checked_value


@dataclass(frozen=True)
class Options:
    every: int
    share: float = 0.5
    name: str | None = None
    nested: dict[str, dict[str, Any]] = field(default_factory=dict)


def test_values_become_the_dataclass_and_the_rest_its_defaults():
    assert build_options("grouping", Options, {"every": 3, "share": 1, "nested": {"a": {"b": 1}}}) == Options(
        every=3, share=1.0, name=None, nested={"a": {"b": 1}}
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"grouping needs the key 'every'"),
        ({"evry": 1}, r"Unknown key in grouping: 'evry'\. Did you mean 'every'\? Allowed: every, name, nested, share"),
        ({"every": "3"}, r"grouping\.every is '3'; it must be of type int"),
        ({"every": True}, r"grouping\.every is True; it must be of type int"),
        ({"every": 1.5}, r"grouping\.every is 1\.5; it must be of type int"),
        ({"every": 1, "share": math.nan}, r"grouping\.share is nan; it must be a finite number"),
        ({"every": 1, "share": "half"}, r"grouping\.share is 'half'; it must be of type float"),
        ({"every": 1, "name": 4}, r"grouping\.name is 4; it must be of type str \| None"),
        ({"every": 1, "nested": {"a": 1}}, r"grouping\.nested is \{'a': 1\}"),
    ],
)
def test_a_wrong_key_or_value_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        build_options("grouping", Options, values)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_is_infinite(value):
    with pytest.raises(ConfigError, match=r"x is .*; it must be a finite number"):
        checked_value("x", value, float)
