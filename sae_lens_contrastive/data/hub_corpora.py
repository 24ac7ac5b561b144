"""Corpora of the Hugging Face hub, streamed: text of any size, nothing stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import IterableDataset

from sae_lens_contrastive.data.corpora import Document, naming
from sae_lens_contrastive.data.hub_datasets import HubDataset
from sae_lens_contrastive.errors import ConfigError

PIECE_CHARACTERS = 8192
"""Longer documents are cut here to train on: about two contexts of 1,024 tokens, so that one paper does not fill a
batch."""


@dataclass(frozen=True)
class HubCorpus(HubDataset):
    """Text of the hub as `hub:NAME#CONFIG@SPLIT:COLUMN`; everything after NAME may be left out."""

    form: ClassVar[str] = (
        "hub:NAME#CONFIG@SPLIT:COLUMN. Everything after NAME may be left out: hub:monology/pile-uncopyrighted, "
        "hub:cais/wmdp-corpora#bio-retain-corpus, hub:wikimedia/wikipedia#20231101.en@train:text"
    )

    column: str = "text"
    """Column that holds the text."""

    def stream(self, left_out_entities: Sequence[str] = ()) -> IterableDataset:
        """Texts in a column `text`, in pieces of at most `PIECE_CHARACTERS`, without documents that name an entity.

        Asks the hub for the first row, so that what is wrong shows before a model is loaded. Raises `UserError` for a
        hub that does not answer, an unknown or gated dataset, configuration or split, and a column without text.
        """
        rows, first = self._open()
        arguments = {"column": self.column, "named": naming(left_out_entities)}
        return rows.map(_pieces_of_batch, batched=True, fn_kwargs=arguments, remove_columns=list(first))

    def documents(self, max_characters: int, left_out_entities: Sequence[str] = ()) -> list[Document]:
        """The first whole documents that name no entity left out, until `max_characters` are reached.

        Raises `UserError` as `stream` does, and for a hub that stops answering.
        """
        rows, _ = self._open()
        named, documents, n_characters = naming(left_out_entities), [], 0
        for number, row in enumerate(self.read(rows)):
            text = row[self.column]
            if not isinstance(text, str) or not text.strip() or (named and named.search(text)):
                continue
            documents.append(Document(f"{self.source}/{number}", self.subset, None, text))
            n_characters += len(text)
            if n_characters >= max_characters:
                break
        return documents

    def _open(self) -> tuple[IterableDataset, dict[str, Any]]:
        rows, first = self.open()
        if not isinstance(first.get(self.column), str):
            texts = [name for name, value in first.items() if isinstance(value, str)]
            raise ConfigError(
                f"The dataset {self.name!r} has no text in a column {self.column!r}. Columns with text: "
                f"{', '.join(texts) or 'none'}. Name one at the end of the source: hub:{self.name}:COLUMN."
            )
        return rows, first


def _pieces_of_batch(rows: dict[str, list[Any]], column: str, named: re.Pattern[str] | None) -> dict[str, list[str]]:
    texts = [text for text in rows[column] if isinstance(text, str) and not (named and named.search(text))]
    return {"text": [piece for text in texts for piece in _pieces(text)]}


def _pieces(text: str) -> Iterator[str]:
    """The text cut at white space into pieces of at most `PIECE_CHARACTERS`; a longer word is cut through."""
    text = text.strip()
    while len(text) > PIECE_CHARACTERS:
        end = max(text.rfind(" ", 0, PIECE_CHARACTERS + 1), text.rfind("\n", 0, PIECE_CHARACTERS + 1))
        end = end if end > 0 else PIECE_CHARACTERS
        yield text[:end]
        text = text[end:].lstrip()
    if text:
        yield text
