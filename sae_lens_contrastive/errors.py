"""Errors a user can cause; the command line prints them and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A message a user can act on: it names the value, the allowed set and the fix."""


class ConfigError(UserError):
    """A configuration value that cannot be used."""


class BusyFolderError(UserError):
    """Another process works in an output folder."""


class LostRankError(UserError):
    """Another rank of a training is gone: nothing in the input must change, the same command goes on."""


def unknown_choice(kind: str, value: object, allowed: Iterable[object], *, fix: str = "") -> ConfigError:
    """Build the error for a value outside a closed set, with the nearest allowed value as the suggestion."""
    names = sorted(str(name) for name in allowed)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names) if names else "none"
    return ConfigError(f"Unknown {kind} {value!r}.{hint} Allowed: {listed}.{' ' + fix if fix else ''}")


def first_line(error: Exception) -> str:
    """What an error of another library says, as one sentence for a message."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    # Where the first line announces a list, its first item says what is wrong.
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return text if text.endswith((".", "!")) else f"{text}."


def shortened(message: str, most: int = 2000) -> str:
    """A message without its middle if it quotes a value that would fill the screen."""
    return message if len(message) <= most else f"{message[: most // 2]} [...] {message[-most // 2 :]}"
