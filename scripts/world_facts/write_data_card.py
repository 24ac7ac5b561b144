"""Fill data_card.md with the numbers of known.json and corpora_stats.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from names import DATA, read_table

from sae_lens_contrastive.files import read_json, write_bytes_atomic

FORGETTABLE = ("countries", "chemical_elements", "irregular_verbs", "opposites", "animals")
NEAR = ("peoples_and_languages", "rivers_and_mountains", "historical_events", "famous_people", "food")


def role_of(domain: str) -> str:
    """How far a domain is from countries, and whether its corpus is large enough to forget it."""
    if domain == "countries":
        return "main, forgettable"
    if domain in NEAR:
        return "near"
    return "far, forgettable" if domain in FORGETTABLE else "far"


def domain_table(known: dict[str, Any], stats: dict[str, Any]) -> str:
    """One row a domain."""
    lines = [
        "| domain | role | questions | known | by prior | known, select | known, held out | documents | tokens |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for domain, counts in known.items():
        split, size = counts["known_by_split"], stats[domain]
        by_prior = counts["known_by_prior"] / counts["known"]
        lines.append(
            f"| {domain} | {role_of(domain)} | {counts['questions']} | {counts['known']} | {by_prior:.2f} "
            f"| {split['select']} | {split['held_out']} | {size['documents']} | {size['tokens']} |"
        )
    size = stats["general"]
    lines.append(f"| general | retain | | | | | | {size['documents']} | {size['tokens']} |")
    return "\n".join(lines) + "\n"


def relation_table(counts: dict[str, Any]) -> str:
    """One row a relation of `countries`."""
    lines = ["| relation of countries | questions | known |", "|---|--:|--:|"]
    lines += [f"| {name} | {n['questions']} | {n['known']} |" for name, n in counts["by_relation"].items()]
    return "\n".join(lines) + "\n"


def card() -> str:
    """The data card, from its template."""
    known, stats = read_json(DATA / "known.json")["domains"], read_json(DATA / "corpora_stats.json")
    template = Path(__file__).with_name("data_card.md").read_text(encoding="utf-8")
    return template.format(
        n_domains=len(known),
        n_questions=sum(counts["questions"] for counts in known.values()),
        n_documents=sum(size["documents"] for size in stats.values()),
        n_tokens=sum(size["tokens"] for size in stats.values()),
        n_countries=len(read_table("countries")),
        tables=domain_table(known, stats) + "\n" + relation_table(known["countries"]),
    )


if __name__ == "__main__":
    write_bytes_atomic(DATA / "DATA_CARD.md", card().encode())
