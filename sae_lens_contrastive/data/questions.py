"""Multiple-choice questions: one stem in several phrasings, one answer, distractors of the same kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_jsonl

Split = Literal["select", "held_out"]


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
    answer: str
    """The right option."""
    distractors: tuple[str, ...]
    """Wrong options of the same kind."""
    split: Split
    """`select` questions may choose settings, `held_out` questions only report."""

    @property
    def options(self) -> tuple[str, ...]:
        """Answer and distractors in an order fixed by a hash, so that the answer's place says nothing."""
        return tuple(sorted((self.answer, *self.distractors), key=lambda option: _digest(f"{self.id}|{option}")))

    @property
    def answer_index(self) -> int:
        """Place of the answer in `options`."""
        return self.options.index(self.answer)

    @property
    def chance(self) -> float:
        """Accuracy of guessing: 1 / number of options."""
        return 1 / (1 + len(self.distractors))


def split_of(entity: str) -> Split:
    """Split of an entity, fixed by a hash of its case-folded name: no list decides it, no seed changes it."""
    return "select" if _digest(entity.casefold())[0] % 2 == 0 else "held_out"


def load_questions(path: Path | str) -> list[Question]:
    """Read questions from `.jsonl` or `.jsonl.gz`; `UserError` names file, line, field and what is allowed."""
    path = Path(path)
    questions: list[Question] = []
    seen: set[str] = set()
    for number, record in read_jsonl(path):
        question = _parse(record, where=f"{path}, line {number}")
        if question.id in seen:
            raise UserError(f"{path}, line {number}: id {question.id!r} appears twice. Ids are unique in a file.")
        seen.add(question.id)
        questions.append(question)
    if not questions:
        raise UserError(f"{path} holds no question. Each line is an object with the keys {_field_names()}.")
    return questions


def of_split(questions: Iterable[Question], split: Split) -> list[Question]:
    """Questions of one split, in their order."""
    return [question for question in questions if question.split == split]


def domains_of(questions: Sequence[Question]) -> list[str]:
    """Domains in order of first appearance."""
    return list(dict.fromkeys(question.domain for question in questions))


def _parse(record: dict[str, Any], where: str) -> Question:
    expected = {field.name for field in fields(Question)}
    if unknown := set(record) - expected:
        raise UserError(f"{where}: unknown field {sorted(unknown)[0]!r}. Allowed: {_field_names()}.")
    if missing := expected - set(record):
        raise UserError(f"{where}: field {sorted(missing)[0]!r} is missing. Needed: {_field_names()}.")
    for name in ("id", "domain", "relation", "entity", "answer"):
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
    return Question(
        **{name: cast(str, record[name]) for name in ("id", "domain", "relation", "entity", "answer")},
        stems=tuple(record["stems"]),
        distractors=tuple(distractors),
        split=record["split"],
    )


def _field_names() -> str:
    return ", ".join(field.name for field in fields(Question))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
