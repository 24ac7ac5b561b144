"""Where the benchmark's files are, and how an entity is named in running text."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent / "facts"
DATA = Path(__file__).parents[2] / "sae_lens_contrastive" / "data" / "world_facts"

# Domains whose entities are everyday words.
WORD_FACTS = frozenset({"irregular_verbs", "opposites", "plurals"})

WITH_ARTICLE = frozenset(
    {
        "Bahamas",
        "Czech Republic",
        "Democratic Republic of the Congo",
        "Dominican Republic",
        "Gambia",
        "Maldives",
        "Netherlands",
        "Philippines",
        "United Arab Emirates",
        "United Kingdom",
        "United States",
    }
)


def in_text(name: str) -> str:
    """The name as it stands in a sentence: "the Netherlands"."""
    return f"the {name}" if name in WITH_ARTICLE else name


def slug(name: str) -> str:
    """Lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def order_key(*parts: str) -> bytes:
    """A stable pseudo-random sort key: adding an item moves no other item."""
    return hashlib.sha256("/".join(parts).encode()).digest()


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of facts/<name>.csv."""
    with (FACTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_facts(name: str) -> Any:
    """The content of facts/<name>.json."""
    return json.loads((FACTS / f"{name}.json").read_text(encoding="utf-8"))
