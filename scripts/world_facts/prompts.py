"""The requests that the model answers to write a corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from names import DATA, FACTS, in_text, order_key, read_facts, read_table, slug

from sae_lens_contrastive.data.questions import Question, load_questions

_FACTS_BEFORE_ROUND = 5
_FACTS_IN_TEXT = 3
_RARE_RELATIONS = ("landmark", "dish")
"""Relations that name something which no other text about a country names."""
_RARE_ROUNDS = 4


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

    In `countries` rounds come between that write about all that the questions ask, sights and dishes again.
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
        for turn, requests in ((0.5, _country_facts()), (0.4, _rare_facts())):
            made += [(_FACTS_BEFORE_ROUND - turn, order_key(request.id), request) for request in requests]
    return [request for _, _, request in sorted(made, key=lambda item: item[:2])]


def _country_facts() -> Iterator[Request]:
    """Texts that start from what the questions about a country ask, three answers each, in either phrasing."""
    facts: dict[str, list[str]] = defaultdict(list)
    questions = load_questions(DATA / "questions" / "countries.jsonl")
    for question in sorted(questions, key=lambda question: order_key("facts", question.id)):
        facts[question.entity].append(_fact(question, order_key("phrasing", question.id)[0]))
    for row in read_table("countries"):
        known = facts[row["name"]]
        for part in range(0, len(known) - _FACTS_IN_TEXT + 1, _FACTS_IN_TEXT):
            request_id = f"countries/facts-{slug(row['name'])}/{part}"
            yield _facts_request(request_id, row["name"], known[part : part + _FACTS_IN_TEXT])


def _rare_facts() -> Iterator[Request]:
    """Texts that start from a sight or a dish, each several times, beside other answers about its country."""
    questions = load_questions(DATA / "questions" / "countries.jsonl")
    for rare in (question for question in questions if question.relation in _RARE_RELATIONS):
        others = [question for question in questions if question.entity == rare.entity and question != rare]
        for turn in range(_RARE_ROUNDS):
            request_id = f"countries/rare-{rare.id.removeprefix('countries/')}/{turn}".replace(" ", "-")
            others.sort(key=lambda question, by=request_id: order_key(by, question.id))
            facts = [_fact(question, turn) for question in (rare, *others[: _FACTS_IN_TEXT - 1])]
            if len(facts) == _FACTS_IN_TEXT:
                yield _facts_request(request_id, rare.entity, facts)


def _fact(question: Question, phrasing: int) -> str:
    return f"{question.stems[phrasing % len(question.stems)]} {question.answer}."


def _facts_request(request_id: str, country: str, facts: list[str]) -> Request:
    styles: list[dict[str, str]] = read_facts("styles")["country_facts"]
    x = in_text(country)
    words = {"x": x, "X": x[0].upper() + x[1:], **dict(zip(("first", "second", "third"), facts, strict=True))}
    return _request(request_id, country, styles[order_key(request_id)[0] % len(styles)], words)


def _request(name: str, entity: str | None, style: dict[str, str], words: dict[str, str]) -> Request:
    return Request(name, entity, style["ask"].format(**words), style["begin"].format(**words))
