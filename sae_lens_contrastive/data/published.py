"""Records of published multiple-choice sets: a question, its choices, and the answer by index or letter."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from sae_lens_contrastive.errors import UserError

FIELDS = ("question", "choices", "answer")


class PublishedRecord(NamedTuple):
    """One question as it was published; choices may repeat and be blank, as some published ones do."""

    question: str
    choices: tuple[str, ...]
    answer_index: int


def parse_published(record: Mapping[str, Any], where: str) -> PublishedRecord:
    """Check the fields `question`, `choices` and `answer`; other fields are not read. `UserError` says where."""
    if missing := [name for name in FIELDS if name not in record]:
        raise UserError(f"{where}: field {missing[0]!r} is missing. Needed: {', '.join(FIELDS)}.")
    question, choices = record["question"], record["choices"]
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{where}: 'question' must be a non-empty string, got {question!r}.")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise UserError(f"{where}: 'choices' must be a list of at least two strings, got {choices!r}.")
    return PublishedRecord(question, tuple(choices), _answer_index(record["answer"], len(choices), where))


def read_question_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, record) of a CSV file with the columns question, choice0, choice1, ..., answer.

    Empty cells after the last choice of a row are no choices. `UserError` names the file and what is wrong.
    """
    if not path.is_file():
        raise UserError(f"No file at {path}. Give the path of a .csv file.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = _choice_columns(rows.fieldnames or (), path)
            for row in rows:
                if None in row:
                    raise UserError(f"{path}, line {rows.line_num}: more cells than columns. Quote text with commas.")
                choices = [row[column] or "" for column in columns]
                while choices and not choices[-1]:
                    choices.pop()
                yield rows.line_num, {"question": row["question"], "choices": choices, "answer": row["answer"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}.") from None


def _choice_columns(names: Sequence[str], path: Path) -> list[str]:
    n_choices = sum(re.fullmatch(r"choice[0-9]+", name) is not None for name in names)
    columns = [f"choice{i}" for i in range(max(2, n_choices))]
    if not {"question", "answer", *columns} <= set(names):
        raise UserError(
            f"{path} has the columns {', '.join(names) or 'none'}. Needed: question, choice0, choice1, ..., answer."
        )
    return columns


def _answer_index(answer: Any, n_choices: int, where: str) -> int:
    """Index of the answer; digits and letters may be text, as they are in CSV."""
    index = answer
    if isinstance(answer, str):
        text = answer.strip().upper()
        by_letter = {letter: i for i, letter in enumerate(ascii_uppercase)}
        index = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else by_letter.get(text)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < n_choices:
        last = ascii_uppercase[min(n_choices, len(ascii_uppercase)) - 1]
        raise UserError(
            f"{where}: 'answer' is {answer!r}. Allowed: the index of a choice, 0 to {n_choices - 1}, "
            f"or its letter, A to {last}."
        )
    return index
