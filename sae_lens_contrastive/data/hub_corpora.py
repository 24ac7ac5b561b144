"""Corpora of the Hugging Face hub, streamed: text of any size, nothing stored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import IterableDataset, load_dataset
from huggingface_hub import HfApi

from sae_lens_contrastive.errors import ConfigError, UserError, first_line
from sae_lens_contrastive.models import why_no_hub

HUB_PREFIX = "hub:"
PIECE_CHARACTERS = 8192
"""Longer documents are cut here: about two contexts of 1,024 tokens, so that one paper does not fill a batch."""

_SYNTAX = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:#(?P<config>[\w.,-]+))?(?:@(?P<split>[\w.-]+))?(?::(?P<column>[\w.-]+))?"
)


@dataclass(frozen=True)
class HubCorpus:
    """A dataset of the hub as `hub:NAME#CONFIG@SPLIT:COLUMN`; everything after NAME may be left out."""

    name: str
    """Dataset, such as `cais/wmdp-corpora`."""
    config: str | None = None
    """Configuration (subset) of the dataset; the dataset's default without it."""
    split: str = "train"
    """Split that is streamed."""
    column: str = "text"
    """Column that holds the text."""

    @classmethod
    def parse(cls, source: str) -> HubCorpus:
        """Read a source string; `ConfigError` if it does not have the form."""
        match = _SYNTAX.fullmatch(source)
        if match is None:
            raise ConfigError(
                f"The corpus {source!r} is not of the form hub:NAME#CONFIG@SPLIT:COLUMN. Everything after NAME may be "
                "left out: hub:monology/pile-uncopyrighted, hub:cais/wmdp-corpora#bio-retain-corpus, "
                "hub:wikimedia/wikipedia#20231101.en@train:text."
            )
        return cls(**{key: value for key, value in match.groupdict().items() if value is not None})

    def stream(self, left_out_entities: Sequence[str] = ()) -> IterableDataset:
        """Texts in a column `text`, in pieces of at most `PIECE_CHARACTERS`, without documents that name an entity.

        Asks the hub for the first row, so that what is wrong shows before a model is loaded. Raises `UserError` for a
        hub that does not answer, an unknown or gated dataset, configuration or split, and a column without text.
        """
        if (reason := why_no_hub(partial(HfApi().dataset_info, self.name))) is not None:
            raise UserError(
                f"The dataset {self.name!r} cannot be read, the Hugging Face hub does not answer: {reason} "
                "Check the network, or give a file."
            )
        try:
            rows = load_dataset(self.name, self.config, split=self.split, streaming=True)
            first = next(iter(rows), None)
        except Exception as error:  # formats and HTTP libraries below raise types of their own
            raise UserError(self._failed(error)) from error
        columns = self._check_first(first)
        arguments = {"column": self.column, "named": _named(left_out_entities)}
        return rows.map(_pieces_of_batch, batched=True, fn_kwargs=arguments, remove_columns=columns)

    def _check_first(self, first: dict[str, Any] | None) -> list[str]:
        if first is None:
            raise UserError(f"The split {self.split!r} of the dataset {self.name!r} holds no row. Give another split.")
        if not isinstance(first.get(self.column), str):
            texts = [name for name, value in first.items() if isinstance(value, str)]
            raise ConfigError(
                f"The dataset {self.name!r} has no text in a column {self.column!r}. Columns with text: "
                f"{', '.join(texts) or 'none'}. Name one at the end of the source: hub:{self.name}:COLUMN."
            )
        return list(first)

    def _failed(self, error: Exception) -> str:
        reason = first_line(error)
        if "gated" in reason:
            return (
                f"The dataset {self.name!r} is gated: ask for access at https://huggingface.co/datasets/{self.name}, "
                "then run `hf auth login`; or give a file."
            )
        return f"The dataset {self.name!r} could not be opened: {reason} Check its name, configuration and split."


def _named(entities: Sequence[str]) -> re.Pattern[str] | None:
    """Pattern that finds any of the entities as whole words: text of the hub has no list of those it names."""
    if not entities:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(entity) for entity in entities)})(?!\w)", re.IGNORECASE)


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
