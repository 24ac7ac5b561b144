"""Corpora: documents that name their domain and the entities they speak of."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_jsonl


@dataclass(frozen=True)
class Document:
    """One text."""

    id: str
    """Unique name within its corpus."""
    domain: str
    """Knowledge domain it was written about, or `general`."""
    entities: tuple[str, ...] | None
    """Entities it names, so that text about held-out ones can be left out; None if nobody listed them."""
    text: str
    """The text itself."""


def load_corpus(path: Path | str) -> list[Document]:
    """Read documents from a `.jsonl`, `.jsonl.gz` or plain `.txt` file (documents separated by empty lines).

    Raises `UserError` if the file is missing or empty, or a record lacks its text.
    """
    path = Path(path)
    documents = _read_text(path) if path.suffix == ".txt" else _read_records(path)
    if not documents:
        raise UserError(f"The corpus {path} holds no document. Give a file with at least one text in it.")
    return documents


def without_entities(documents: Iterable[Document], entities: Collection[str]) -> list[Document]:
    """Documents that name none of `entities`, by the list they have of theirs or, without one, in their text."""
    left_out, named = {entity.casefold() for entity in entities}, naming(entities)

    def names_one(document: Document) -> bool:
        if document.entities is None:
            return named is not None and named.search(document.text) is not None
        return any(entity.casefold() in left_out for entity in document.entities)

    return [document for document in documents if not names_one(document)]


def naming(entities: Collection[str]) -> re.Pattern[str] | None:
    """Pattern that finds any of the entities as whole words in text that has no list of those it names."""
    if not entities:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(entity) for entity in entities)})(?!\w)", re.IGNORECASE)


def to_dataset(documents: Iterable[Document]) -> Dataset:
    """The texts as a Hugging Face dataset with the column `text`, as SAELens' activation store takes it."""
    return Dataset.from_dict({"text": [document.text for document in documents]})


def _read_text(path: Path) -> list[Document]:
    if not path.is_file():
        raise UserError(f"No file at {path}. Give the path of a .txt, .jsonl or .jsonl.gz corpus.")
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}). Convert it first.") from None
    texts = [part.strip() for part in content.split("\n\n") if part.strip()]
    return [Document(id=f"{path.stem}/{i}", domain=path.stem, entities=None, text=t) for i, t in enumerate(texts)]


def _read_records(path: Path) -> list[Document]:
    documents = []
    for number, record in read_jsonl(path):
        text = record.get("text")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{path}, line {number}: 'text' must be a non-empty string, got {text!r}.")
        entities = record.get("entities")
        are_names = isinstance(entities, list) and all(isinstance(entity, str) for entity in entities)
        if entities is not None and not are_names:
            raise UserError(f"{path}, line {number}: 'entities' must be a list of strings, got {entities!r}.")
        documents.append(
            Document(
                id=str(record.get("id", f"{path.name}/{number}")),
                domain=str(record.get("domain", path.name.split(".")[0])),
                entities=None if entities is None else tuple(entities),
                text=text,
            )
        )
    return documents
