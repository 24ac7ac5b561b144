"""Answers under each edit of one SAE, saved as they come, so that a killed evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.unlearning.prompt_set import Edit

Answers = dict[str, Bool[Tensor, " n_known"]]
"""Which known questions are still answered right, by side and split."""


class AnswerStore:
    """Answers by edit, in a file if there is a path.

    `identity` is what the answers depend on beside the edit: SAE, model, questions, versions. A file of another
    identity, or a damaged one, counts as empty.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = dict(identity)
        self._answers: dict[str, dict[str, str]] = {}
        if path is not None and path.is_file():
            self._answers = self._saved(path)

    def get(self, edit: Edit) -> Answers | None:
        """Answers under an edit; None if they are not there."""
        saved = self._answers.get(edit_key(edit))
        if saved is None:
            return None
        return {name: torch.tensor([mark == "1" for mark in marks], dtype=torch.bool) for name, marks in saved.items()}

    def add(self, answers: Mapping[Edit, Answers]) -> None:
        """Add answers and save all."""
        for edit, by_side in answers.items():
            self._answers[edit_key(edit)] = {
                name: "".join("1" if mark else "0" for mark in right.tolist()) for name, right in by_side.items()
            }
        if self.path is not None:
            write_json(self.path, {"identity": self.identity, "answers": self._answers})

    def _saved(self, path: Path) -> dict[str, dict[str, str]]:
        try:
            saved = read_json(path)
            return dict(saved["answers"]) if saved["identity"] == self.identity else {}
        except (UserError, KeyError, TypeError, ValueError):
            return {}


def edit_key(edit: Edit) -> str:
    """SHA-256 of the features and of the intervention with all its options."""
    intervention: Any = edit.intervention
    content = [list(edit.features), type(intervention).__qualname__, asdict(intervention)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
