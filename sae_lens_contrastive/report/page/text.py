"""What is read from files, made fit for a page: nothing in it is markup, code or invisible."""

from __future__ import annotations

import html
import json
import math
import unicodedata
from typing import Any

from markupsafe import Markup

_SHOWN = {"\n": "↵", "\t": "⇥", "\r": "↵"}
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Plotly fills these in; they are written here and hold no text of a file.
_TEMPLATES = ("hovertemplate", "texttemplate")


def visible(value: Any) -> Any:
    """Text in which control characters, and those that turn its direction around, are signs that are seen.

    It is what every value goes through before the template escapes it.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    if value.isprintable():
        return value
    return "".join(_SHOWN.get(c, "�" if unicodedata.category(c) in _UNSEEN else c) for c in value)


def shortened(text: str, most: int = 60) -> str:
    """Text without its end if it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plotly_json(value: Any) -> Markup:
    """Plots as JSON that can stand in a script element, every text in them escaped, since Plotly reads markup in text.

    A line break in a text, which no name has, becomes one in the plot. Numbers that are not finite become null.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key in _TEMPLATES else _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return "<br>".join(html.escape(visible(line), quote=False) for line in value.split("\n"))
    if isinstance(value, float):
        # More digits than a screen shows would make up half of the page.
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
