"""What weights are, in memory and in folders, as a hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_lens_contrastive.files import input_sha256
from sae_lens_contrastive.models.embedded import EMBEDDED_MODELS

_OF_NO_CONSEQUENCE = {"transformers_version", "dtype", "torch_dtype"}


def weights_digest(tensors: dict[str, Tensor], about: str = "") -> str:
    """SHA-256 of tensors by name, their types and shapes, and of what else is said about them."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()


def model_digest(model: Any) -> str:
    """SHA-256 of the weights of a model, its configuration, and what its tokenizer makes of text."""
    return weights_digest(dict(model.named_parameters()), json.dumps([_configuration(model), _tokenizer(model)]))


def _configuration(model: Any) -> dict[str, str]:
    """Options by name, without those that say where a model was loaded from and by which version."""
    config = getattr(getattr(model, "original_model", None), "config", None)
    options = {} if config is None else config.to_dict()
    return {key: str(options[key]) for key in sorted(options) if key[0] != "_" and key not in _OF_NO_CONSEQUENCE}


def _tokenizer(model: Any) -> list[str]:
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    made_of = {} if backend is None else json.loads(backend.to_str())
    # Calls of the tokenizer set these anew.
    parts = {key: value for key, value in made_of.items() if key not in ("padding", "truncation")}
    return [json.dumps(parts, sort_keys=True), str(tokenizer.chat_template), str(tokenizer.special_tokens_map)]


def model_content(model: str) -> list[str]:
    """What a local folder holds now, as a hash: another model may be saved there under the same name. Empty for the
    name of an embedded model or of one on the hub."""
    is_folder = model not in EMBEDDED_MODELS and Path(model).is_dir()
    return [folder_digest(Path(model))] if is_folder else []


def folder_digest(folder: Path) -> str:
    """SHA-256 of the files that lie in a folder, such as one that a model or an SAE was saved to, by their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {input_sha256(path)} ".encode())
    return digest.hexdigest()
