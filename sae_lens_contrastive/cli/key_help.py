"""Help on the keys of a file."""

from __future__ import annotations

import argparse

RAW = argparse.RawDescriptionHelpFormatter
"""Keeps the lines of an epilog as they are."""


def fields(config_class: type) -> str:
    """Each key with its default and what it says."""
    lines = []
    for name, field in config_class.model_fields.items():
        default = "" if field.is_required() else f" (default: {field.get_default(call_default_factory=True)!r})"
        lines.append(f"  {name}{default}\n      {' '.join((field.description or '').split())}")
    return "\n".join(lines)
