"""The documentation site: help texts of commands come from the parser itself."""

import argparse
import os
import re
from typing import Any

from sae_lens_contrastive.cli.parser import parser

_HELP = re.compile(r"<!-- help:(?: ([a-z]+))? -->")
_WIDTH = "76"


def on_page_markdown(markdown: str, **_page: Any) -> str:
    """Put the help of a command in the place of its marker; the marker without a name stands for all of it."""
    return _HELP.sub(lambda match: f"```text\n{_help(match[1])}```", markdown)


def _help(name: str | None) -> str:
    # argparse asks the environment how wide a line is.
    os.environ["COLUMNS"] = _WIDTH
    whole = parser()
    return (commands(whole)[name] if name else whole).format_help()


def commands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (found,) = (action.choices for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found)
