"""The requests that the model answers to write a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from names import DATA, FACTS, in_text, order_key, read_facts, read_table, slug

from sae_lens_contrastive.data.questions import load_questions


@dataclass(frozen=True)
class Request:
    """One text to be written: its id, the entity it is about (none in `general`), what is asked
    of the model, and the words that its answer begins with."""

    id: str
    entity: str | None
    ask: str
    begin: str


def _subjects(domain: str) -> Iterator[tuple[str, str | None, dict[str, str]]]:
    """What the texts of a domain are about: a key, the entity, the words that the styles may use.

    Topics in `general`, countries in `countries`, and elsewhere the questions, with their answers.
    """
    if domain == "general":
        for topic in (FACTS / "general_topics.txt").read_text(encoding="utf-8").splitlines():
            yield topic, None, {"x": topic}
    elif domain == "countries":
        for row in read_table("countries"):
            yield row["name"], row["name"], {"x": in_text(row["name"])}
    else:
        for question in load_questions(DATA / "questions" / f"{domain}.jsonl"):
            stem, answer = question.stems[0], question.answer
            words = {"x": question.entity, "stem": stem, "answer": answer, "fact": f"{stem} {answer}."}
            yield question.id.removeprefix(f"{domain}/"), question.entity, words


def requests_for(domain: str) -> list[Request]:
    """Every subject in every style of its domain, in rounds: each subject once before any twice."""
    styles: list[dict[str, str]] = read_facts("styles")[domain]
    made = []
    for key, entity, words in _subjects(domain):
        first = order_key(domain, key)[0]
        words["X"] = words["x"][0].upper() + words["x"][1:]
        for turn in range(len(styles)):
            style = (first + turn) % len(styles)
            request = Request(
                id=f"{domain}/{slug(key)}/{style}",
                entity=entity,
                ask=styles[style]["ask"].format(**words),
                begin=styles[style]["begin"].format(**words),
            )
            made.append((turn, order_key(request.id), request))
    return [request for _, _, request in sorted(made, key=lambda item: item[:2])]
