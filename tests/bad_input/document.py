"""The table of bad inputs in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folder import BadInput

DOCUMENT = Path(__file__).parents[2] / "docs" / "bad_input.md"

_CHECKED = {
    "configuration": (
        "YAML 1.1 without tags that make objects, at most 100,000 values with aliases unfolded; known keys, types and "
        "ranges; names in registries; files that it names."
    ),
    "--set": "The form `key=value`, then as a configuration.",
    "corpus": (
        "That it is there, readable, UTF-8, and holds text; each record's fields; that text is left once held-out "
        "entities are taken out. A line may be 64 MiB long, unzipped."
    ),
    "questions": "That they are there and readable; every field of every record; ids once in a file and on one side.",
    "specification": (
        "As a configuration; names and options of selectors and interventions, placeholders of templates."
    ),
    "SAE": (
        "That `cfg.json` and `sae_weights.safetensors` belong together, hold finite floating-point numbers and name a "
        "hook. Nothing is unpickled."
    ),
    "output folder": (
        "That it can be written to, is empty or holds the same run, and that no other process works in it."
    ),
    "results": (
        "Types and ranges of all that a table, a figure or the page shows; names without control characters, 200 "
        "characters at most."
    ),
    "forget edit": "Types and ranges of all fields; features and directions against the SAE; that its model is known.",
    "dashboard": "Features against the SAE; that the texts can be read and a model is named.",
    "study": "As a configuration; names that become folders; every file that it names.",
    "search": "As a configuration; that every value of the space makes a valid run.",
    "sweep": "As a configuration; that every job of a grid, and every value of a search, makes a valid run.",
}
_HEAD = (
    "# Bad input\n\nWhat a user gives, what is checked, and what is said if it is wrong. Everything here is said "
    "before a model is loaded,\nwith exit code 2, and leaves no file behind. Each row is a test: "
    "`tests/bad_input` holds the inputs,\n`python scripts/bad_input_table.py` writes this page anew.\n"
)


# Signs that would be read as another cell, a link, emphasis or markup.
_AS_TEXT = str.maketrans({sign: f"\\{sign}" for sign in "|[]*<"})


def row(case: BadInput, message: str) -> str:
    """A line of the table."""
    return f"| {case.wrong} | {' '.join(message.split()).translate(_AS_TEXT)} |"


def page(messages: Sequence[tuple[BadInput, str]]) -> str:
    """The whole page."""
    lines = [_HEAD]
    for kind, checked in _CHECKED.items():
        rows = [row(case, message) for case, message in messages if case.kind == kind]
        lines += [f"## {kind}\n\n{checked}\n", "| what is wrong | what is said |", "|---|---|", *rows, ""]
    return "\n".join(lines)
