"""The questions of the domains that are lists: elements, verbs, opposites, plurals, and facts/<domain>.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import periodictable
from making import Draft, draft_question
from names import read_facts, read_table

Relations = Mapping[str, Mapping[str, Any]]

_LAST_ELEMENT = 94
_LAST_ASKED_NUMBER = 36


def _with_article(stem: str) -> str:
    """The stem with "an" before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeio]|u(?!ni))", r"\1n ", stem)


def entity_of(subject: str) -> str:
    """The subject of a question without its article, so that "the Nile" and "Nile" are one entity."""
    return re.sub(r"^(the|an|a) ", "", subject)


def listed_questions(domain: str, relations: Relations | None = None) -> list[Draft]:
    """The questions of facts/<domain>.json, or of `relations`, whose answers are one another's distractors.

    A relation has `stems` and `answers` (subject to answer), and may have `alike` (groups of answers that never
    stand together), `pool` (the options, where the answers are too few), `entity` ("answer": split by the answer),
    `wrong` (per subject, what is right too).
    """
    made = []
    for relation, table in (read_facts(domain) if relations is None else relations).items():
        answers: dict[str, str] = table["answers"]
        for subject, answer in answers.items():
            stems = [
                _with_article(stem.format(e=subject, E=subject[0].upper() + subject[1:])) for stem in table["stems"]
            ]
            wrong = {other for group in table.get("alike", []) if answer in group for other in group}
            wrong |= set(table.get("wrong", {}).get(subject, []))
            entity, about = entity_of(subject), ""
            if table.get("entity") == "answer":
                entity, about = answer, subject
            elif entity in table.get("entity_of", {}):
                entity, about = table["entity_of"][entity], entity
            pool = table.get("pool", list(answers.values()))
            made.append(draft_question(domain, relation, entity, stems, answer, [pool], wrong, about))
    return [question for question in made if question is not None]


def element_questions() -> list[Draft]:
    """Symbols and atomic numbers from periodictable, and the listed facts."""
    elements = [element for element in periodictable.elements if 1 <= element.number <= _LAST_ELEMENT]
    names = [element.name for element in elements]
    symbols = [element.symbol for element in elements]
    made = []
    for element in elements:
        name, symbol, number = element.name, element.symbol, str(element.number)
        stems = [f"The chemical symbol for {name} is", f"In the periodic table, {name} is written as"]
        alike = [other for other in symbols if other[0] == name[0].upper()]
        made.append(draft_question("chemical_elements", "symbol", name, stems, symbol, [alike, symbols]))
        stems = [f"The chemical symbol {symbol} stands for", f"The name of the element with the symbol {symbol} is"]
        alike = [other for other in names if other[0] == symbol[0].lower()]
        made.append(draft_question("chemical_elements", "symbol-of", name, stems, name, [alike, names]))
        if element.number <= _LAST_ASKED_NUMBER:
            stems = [f"The atomic number of {name} is", f"The number of protons in an atom of {name} is"]
            numbers = [str(n) for n in range(1, _LAST_ASKED_NUMBER + 1)]
            made.append(draft_question("chemical_elements", "atomic-number", name, stems, number, [numbers]))
    return [question for question in made if question is not None] + listed_questions("chemical_elements")


def verb_questions() -> list[Draft]:
    """Past tense, past participle and base form of the irregular verbs."""
    rows = read_table("irregular_verbs")
    forms = {row["verb"]: [row["verb"], row["past"], row["participle"]] for row in rows}
    past = {row["verb"]: row["past"] for row in rows}
    participle = {row["verb"]: row["participle"] for row in rows if row["participle"]}
    # "lay" is a verb and the past of "lie"; "found", "ground" and the like have verbs of their own.
    base = {row["past"]: row["verb"] for row in rows if row["past"] not in ("lay", "found", "ground", "bound", "read")}
    return listed_questions("irregular_verbs", {
        "past": {
            "stems": ["The past tense of {e} is", "Today they {e}. Yesterday they"],
            "answers": past, "wrong": forms,
        },
        "participle": {
            "stems": ["The past participle of {e} is", "They often {e}. They have always"],
            "answers": participle, "wrong": forms,
        },
        "base": {
            "stems": ["\"{E}\" is the past tense of the verb to", "Yesterday she {e}, and tomorrow she will"],
            "answers": base, "entity_of": base,
        },
    })  # fmt: skip


def opposite_questions() -> list[Draft]:
    """Each pair of opposites in both directions; the pair is one entity."""
    pairs = [(row["word"], row["opposite"]) for row in read_table("opposites")]
    forth, back = dict(pairs), {opposite: word for word, opposite in pairs}
    answers = forth | {word: answer for word, answer in back.items() if word not in forth}
    right: dict[str, list[str]] = {}
    for word, opposite in pairs:
        right.setdefault(word, []).append(opposite)
        right.setdefault(opposite, []).append(word)
    return listed_questions("opposites", {
        "opposite": {
            "stems": ["The opposite of {e} is", "The antonym of the word {e} is the word"],
            "answers": answers, "wrong": right, "alike": read_facts("opposites")["alike"],
            "entity_of": {word: answer for word, answer in back.items() if word not in forth},
        },
    })  # fmt: skip


def plural_questions() -> list[Draft]:
    """Plurals, with other nouns' plurals as distractors, and the singular forms back."""
    plural = {row["noun"]: row["plural"] for row in read_table("plurals")}
    base = {answer: noun for noun, answer in plural.items() if noun != answer}
    return listed_questions("plurals", {
        "plural": {
            "stems": ["The plural of \"{e}\" is", "First there was one {e}, then there were two"],
            "answers": plural,
        },
        "singular": {
            "stems": ["The singular of \"{e}\" is", "First there were two {e}, now there is only one"],
            "answers": base, "entity_of": base,
        },
    })  # fmt: skip


BUILDERS = {
    "chemical_elements": element_questions,
    "irregular_verbs": verb_questions,
    "opposites": opposite_questions,
    "plurals": plural_questions,
}


def word_questions(domain: str) -> list[Draft]:
    """The questions of any domain but countries."""
    return BUILDERS[domain]() if domain in BUILDERS else listed_questions(domain)
