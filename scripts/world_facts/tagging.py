"""Which entities of its domain a text names."""

from __future__ import annotations

import re
from collections import defaultdict

from countries import load_countries
from names import DATA, WORD_FACTS

from sae_lens_contrastive.data.questions import load_questions

# "The verb for what a cow does": these relations ask for the entity's answer, which names the fact by itself.
_NAMED_BY_ANSWER = frozenset({"job", "tool", "place"})


class Namer:
    """Finds the entities of one domain in a text, by whole words.

    A country is also named by its capital, its nationality and its listed cities, written with capitals. In the
    domains of words (verbs, opposites, plurals), whose entities are everyday words, a text names an entity only
    if it holds the two words that make the fact: "go" and "went".
    """

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.names: dict[str, set[str]] = defaultdict(set)
        self.pairs: set[tuple[str, str, str]] = set()
        if domain in ("general", "countries"):
            for country in load_countries():
                for name in (country.name, country.capital, country.nationality, *country.cities):
                    if name:
                        self.names[name].add(country.name)
        else:
            self._read_questions()
        self.case = domain in ("general", "countries")
        longest_first = sorted(self.names, key=lambda name: (-len(name), name))
        words = "|".join(re.escape(name if self.case else name.casefold()) for name in longest_first)
        self.pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None

    def _read_questions(self) -> None:
        for question in load_questions(DATA / "questions" / f"{self.domain}.jsonl"):
            if self.domain in WORD_FACTS:
                asked = question.id.rsplit("/", 1)[1].removeprefix(f"{question.entity}-")
                self.pairs.add((asked, question.answer, question.entity))
            else:
                self.names[question.entity.casefold()].add(question.entity)
                if question.relation in _NAMED_BY_ANSWER:
                    self.names[question.answer.casefold()].add(question.entity)

    def named_in(self, text: str) -> set[str]:
        """The entities that the text names."""
        if self.domain in WORD_FACTS:
            words = set(re.findall(r"\w+", text.casefold()))
            return {entity for asked, answer, entity in self.pairs if asked in words and answer in words}
        if self.pattern is None:
            return set()
        found = set(self.pattern.findall(text if self.case else text.casefold()))
        return {entity for name in found for entity in self.names[name]}
