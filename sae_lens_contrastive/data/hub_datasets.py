"""Datasets of the Hugging Face hub by source strings, opened as streams of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, TypeVar

from datasets import IterableDataset, load_dataset
from huggingface_hub import HfApi

from sae_lens_contrastive.errors import ConfigError, UserError, first_line
from sae_lens_contrastive.models import why_no_hub

HUB_PREFIX = "hub:"

_SYNTAX = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:#(?P<config>[\w.,-]+))?(?:@(?P<split>[\w.-]+))?(?::(?P<column>[\w.-]+))?"
)

T_DATASET = TypeVar("T_DATASET", bound="HubDataset")


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset of the hub; subclasses say what its rows are for and fix the form of their sources."""

    form: ClassVar[str]
    """How a source is written, for messages."""

    name: str
    """Dataset, such as `cais/wmdp-corpora`."""
    config: str | None = None
    """Configuration (subset) of the dataset; the dataset's default without it."""
    split: str = "train"
    """Split that is read."""

    @classmethod
    def parse(cls: type[T_DATASET], source: str) -> T_DATASET:
        """Read a source string; `ConfigError` if it does not have the form."""
        match = _SYNTAX.fullmatch(source)
        values = {key: value for key, value in match.groupdict().items() if value is not None} if match else {}
        if not values or not set(values) <= {field.name for field in fields(cls)}:
            raise ConfigError(f"{source!r} is not of the form {cls.form}.")
        return cls(**values)

    @property
    def source(self) -> str:
        """Dataset, configuration and split, as ids name them."""
        return f"{self.name}{f'#{self.config}' if self.config else ''}@{self.split}"

    @property
    def subset(self) -> str:
        """Name of what the rows are about: the configuration, else the dataset without its owner."""
        return self.config or self.name.rpartition("/")[2]

    def open(self) -> tuple[IterableDataset, dict[str, Any]]:
        """The stream of rows and the first row, which is in the stream too.

        Raises `UserError` for a hub that does not answer and a dataset, configuration or split that is unknown, gated
        or empty.
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
        if first is None:
            raise UserError(f"The split {self.split!r} of the dataset {self.name!r} holds no row. Give another split.")
        return rows, first

    def read(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows one by one; `UserError` if the hub stops answering on the way."""
        iterator = iter(rows)
        while True:
            try:
                row = next(iterator, None)
            except Exception as error:  # as above
                raise UserError(
                    f"Reading the dataset {self.name!r} stopped: {first_line(error)} Try again, or give a file."
                ) from error
            if row is None:
                return
            yield row

    def _failed(self, error: Exception) -> str:
        reason = first_line(error)
        if "gated" in reason:
            return (
                f"The dataset {self.name!r} is gated: ask for access at https://huggingface.co/datasets/{self.name}, "
                "then run `hf auth login`; or give a file."
            )
        return f"The dataset {self.name!r} could not be opened: {reason} Check its name, configuration and split."
