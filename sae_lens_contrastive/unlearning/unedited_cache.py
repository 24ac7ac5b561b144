"""What a model gives without an edit, kept in files for every SAE that is evaluated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sae_lens_contrastive.kept_tensors import kept_tensors
from sae_lens_contrastive.models import model_digest
from sae_lens_contrastive.versions import package_versions


class UneditedCache:
    """Tensors that depend on a model, a hook and a specification, but on no SAE.

    In a folder they outlive the process, and several processes share them: the first to need one makes it, the others
    wait for it. Without a folder they are made when asked for. `identity` is what all of them depend on.
    """

    def __init__(self, folder: Path | None = None, identity: Sequence[Any] = ()) -> None:
        self.folder = folder
        self.identity = list(identity)

    @classmethod
    def of(cls, folder: Path | None, model: Any, hook_name: str, batch_tokens: int) -> UneditedCache:
        """The cache of a model and a hook."""
        if folder is None:
            return cls()
        # Another batch size or device gives the same numbers only up to rounding.
        return cls(folder, [model_digest(model), hook_name, batch_tokens, str(model.cfg.device), package_versions()])

    def tensors(self, name: str, depends: Any, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """Tensors of a kind, from their file if it was made from the same identity and the same JSON in `depends`.

        Raises `UserError` if there is no room for the file.
        """
        if self.folder is None:
            return make()
        made_from = json.dumps([self.identity, name, depends], sort_keys=True)
        fingerprint = hashlib.sha256(made_from.encode()).hexdigest()
        return kept_tensors(self.folder / f"{name}-{fingerprint[:16]}.safetensors", fingerprint, make)
