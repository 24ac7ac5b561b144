"""The requests that the model answers to write a corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from names import DATA, FACTS, in_text, order_key, read_facts, read_table, slug

from sae_lens_contrastive.data.questions import load_questions

_FACTS_BEFORE_ROUND = 5
_FACTS_IN_TEXT = 3


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
    """Every subject in every style of its domain, in rounds: each subject once before any twice.

    In `countries` a round comes between that writes about all that the questions ask.
    """
    made = []
    for key, entity, words in _subjects(domain):
        first = order_key(domain, key)[0]
        words["X"] = words["x"][0].upper() + words["x"][1:]
        styles: list[dict[str, str]] = read_facts("styles")[domain]
        for turn in range(len(styles)):
            style = (first + turn) % len(styles)
            request = _request(f"{domain}/{slug(key)}/{style}", entity, styles[style], words)
            made.append((turn, order_key(request.id), request))
    if domain == "countries":
        made += [(_FACTS_BEFORE_ROUND - 0.5, order_key(request.id), request) for request in _country_facts()]
    return [request for _, _, request in sorted(made, key=lambda item: item[:2])]


def _country_facts() -> Iterator[Request]:
    """Texts that start from what the questions about a country ask, three answers each, in either phrasing."""
    styles: list[dict[str, str]] = read_facts("styles")["country_facts"]
    facts: dict[str, list[str]] = defaultdict(list)
    questions = load_questions(DATA / "questions" / "countries.jsonl")
    for question in sorted(questions, key=lambda question: order_key("facts", question.id)):
        stem = question.stems[order_key("phrasing", question.id)[0] % len(question.stems)]
        facts[question.entity].append(f"{stem} {question.answer}.")
    for row in read_table("countries"):
        name = row["name"]
        x, known = in_text(name), facts[name]
        for part in range(0, len(known) - _FACTS_IN_TEXT + 1, _FACTS_IN_TEXT):
            first, second, third = known[part : part + _FACTS_IN_TEXT]
            words = {"x": x, "X": x[0].upper() + x[1:], "first": first, "second": second, "third": third}
            request_id = f"countries/facts-{slug(name)}/{part}"
            style = styles[order_key(request_id)[0] % len(styles)]
            yield _request(request_id, name, style, words)


def _request(name: str, entity: str | None, style: dict[str, str], words: dict[str, str]) -> Request:
    return Request(name, entity, style["ask"].format(**words), style["begin"].format(**words))
