"""Published multiple-choice sets of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sae_lens_contrastive.data.hub_datasets import HubDataset
from sae_lens_contrastive.data.published import FIELDS
from sae_lens_contrastive.data.questions import Question, published_questions
from sae_lens_contrastive.errors import ConfigError


@dataclass(frozen=True)
class HubQuestions(HubDataset):
    """Questions of the hub as `hub:NAME#CONFIG@SPLIT`, in the columns question, choices and answer."""

    form: ClassVar[str] = (
        "hub:NAME#CONFIG@SPLIT. Everything after NAME may be left out: hub:cais/wmdp#wmdp-bio, "
        "hub:cais/mmlu#high_school_geography@test"
    )

    split: str = "test"
    """Split that is read."""

    def load(self) -> list[Question]:
        """All questions of the split, of the domain CONFIG, or NAME without its owner.

        Raises `UserError` for a hub that does not answer, a dataset, configuration or split that cannot be read, and
        rows that are no questions.
        """
        rows, first = self.open()
        if missing := [column for column in FIELDS if column not in first]:
            raise ConfigError(
                f"The dataset {self.name!r} has no column {missing[0]!r}. Needed: {', '.join(FIELDS)}; it has "
                f"{', '.join(first)}. Write its questions to a .jsonl file with these fields."
            )
        records = [(f"{self.source}, row {number}", row) for number, row in enumerate(self.read(rows))]
        return published_questions(records, source=self.source, domain=self.subset)
