"""Errors a user can cause; the command line prints them and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A message a user can act on: it names the value, the allowed set and the fix."""


class ConfigError(UserError):
    """A configuration value that cannot be used."""


def unknown_choice(kind: str, value: object, allowed: Iterable[object], *, fix: str = "") -> ConfigError:
    """Build the error for a value outside a closed set, with the nearest allowed value as the suggestion."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return ConfigError(f"Unknown {kind} {value!r}.{hint} Allowed: {listed}.{' ' + fix if fix else ''}")


def first_line(error: Exception) -> str:
    """What an error of another library says, as one sentence for a message."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if text.endswith((".", "!")) else f"{text}."
