"""Multiple-choice questions: one stem in several phrasings, one answer, distractors of the same kind."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sae_lens_contrastive.data.published import FIELDS, parse_published, read_question_csv
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_jsonl

Split = Literal["select", "held_out"]

_TEXTS = ("id", "domain", "relation", "entity", "answer")
_KEYS = ("id", "domain", "relation", "entity", "stems", "answer", "distractors", "split")
_SUFFIXES = re.compile(r"\.(?:jsonl|jsonl\.gz|csv)$")
_SET_SPLIT = re.compile(r"_(?:test|dev|val)$")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question about one entity of one domain."""

    id: str
    """Unique name, `domain/relation/entity` in the embedded benchmark."""
    domain: str
    """Knowledge domain, the unit that is forgotten or retained."""
    relation: str
    """What is asked of the entity, such as `capital`."""
    entity: str
    """What the question is about; questions are split by it."""
    stems: tuple[str, ...]
    """Phrasings of the same question; a cloze stem ends where the answer begins, without a space."""
    options: tuple[str, ...]
    """What is chosen from, in the order in which it is listed; published sets may repeat an option."""
    answer_index: int
    """Place of the right option."""
    split: Split
    """`select` questions may choose settings, `held_out` questions only report."""

    @classmethod
    def with_distractors(cls, *, id: str, answer: str, distractors: Sequence[str], **others: Any) -> Question:
        """A question whose options stand in an order fixed by a hash, so that the answer's place says nothing."""
        options = tuple(sorted((answer, *distractors), key=lambda option: _digest(f"{id}|{option}")))
        return cls(id=id, options=options, answer_index=options.index(answer), **others)

    @property
    def answer(self) -> str:
        """The right option."""
        return self.options[self.answer_index]

    @property
    def distractors(self) -> tuple[str, ...]:
        """The other options."""
        return self.options[: self.answer_index] + self.options[self.answer_index + 1 :]

    @property
    def chance(self) -> float:
        """Accuracy of guessing: 1 / number of options."""
        return 1 / len(self.options)


def split_of(entity: str) -> Split:
    """Split of an entity, fixed by a hash of its case-folded name: no list decides it, no seed changes it."""
    return "select" if _digest(entity.casefold())[0] % 2 == 0 else "held_out"


def load_questions(path: Path | str) -> list[Question]:
    """Read questions from `.jsonl` or `.jsonl.gz`, in the native or the published format, or from `.csv`.

    Native records have the keys id, domain, relation, entity, stems, answer, distractors, split; published ones
    question, choices, answer. Raises `UserError` with file, line, field and what is allowed.
    """
    path = Path(path)
    records = list(read_question_csv(path) if path.suffix == ".csv" else read_jsonl(path))
    if not records:
        raise UserError(
            f"{path} holds no question. Each line is an object with the keys {', '.join(_KEYS)}; or with "
            f"{', '.join(FIELDS)}."
        )
    located = [(f"{path}, line {number}", record) for number, record in records]
    if "choices" in records[0][1]:
        name = _SUFFIXES.sub("", path.name)
        return published_questions(located, source=name, domain=_SET_SPLIT.sub("", name))
    questions: dict[str, Question] = {}
    for where, record in located:
        question = _parse(record, where)
        if question.id in questions:
            raise UserError(f"{where}: id {question.id!r} appears twice. Ids are unique in a file.")
        questions[question.id] = question
    return list(questions.values())


def published_questions(records: Iterable[tuple[str, Mapping[str, Any]]], source: str, domain: str) -> list[Question]:
    """Questions of a published set from (place for messages, record), named `source/row`.

    Nothing says which entity a published question is about, so each counts as one of its own.
    """
    questions = []
    for row, (where, record) in enumerate(records):
        published, name = parse_published(record, where), f"{source}/{row}"
        questions.append(
            Question(
                id=name,
                domain=domain,
                relation="question",
                entity=name,
                stems=(published.question,),
                options=published.choices,
                answer_index=published.answer_index,
                split=split_of(name),
            )
        )
    return questions


def of_split(questions: Iterable[Question], split: Split) -> list[Question]:
    """Questions of one split, in their order."""
    return [question for question in questions if question.split == split]


def domains_of(questions: Sequence[Question]) -> list[str]:
    """Domains in order of first appearance."""
    return list(dict.fromkeys(question.domain for question in questions))


def _parse(record: dict[str, Any], where: str) -> Question:
    expected = set(_KEYS)
    if unknown := set(record) - expected:
        raise UserError(f"{where}: unknown field {sorted(unknown)[0]!r}. Allowed: {', '.join(_KEYS)}.")
    if missing := expected - set(record):
        raise UserError(f"{where}: field {sorted(missing)[0]!r} is missing. Needed: {', '.join(_KEYS)}.")
    for name in _TEXTS:
        if not isinstance(record[name], str) or not record[name].strip():
            raise UserError(f"{where}: {name!r} must be a non-empty string, got {record[name]!r}.")
    for name in ("stems", "distractors"):
        values = record[name]
        if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise UserError(f"{where}: {name!r} must be a non-empty list of non-empty strings, got {values!r}.")
    if record["split"] not in get_args(Split):
        raise UserError(f"{where}: 'split' is {record['split']!r}. Allowed: select, held_out.")
    distractors = record["distractors"]
    if record["answer"] in distractors or len(set(distractors)) != len(distractors):
        raise UserError(
            f"{where}: 'distractors' {distractors!r} must be distinct and differ from the answer {record['answer']!r}."
        )
    return Question.with_distractors(**{**record, "stems": tuple(record["stems"])})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
