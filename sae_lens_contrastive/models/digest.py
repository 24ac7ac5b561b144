"""What weights are, in memory and in folders, as a hash."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def weights_digest(tensors: dict[str, Tensor], about: str = "") -> str:
    """SHA-256 of tensors by name, their types and shapes, and of what else is said about them."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()


def model_digest(model: Any) -> str:
    """SHA-256 of the weights of a model."""
    return weights_digest(dict(model.named_parameters()))


def folder_digest(folder: Path) -> str:
    """SHA-256 of the files that lie in a folder, such as one that a model or an SAE was saved to, by their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        state = path.stat()
        digest.update(f"{path.name} {_file_digest(path.resolve(), state.st_size, state.st_mtime_ns)} ".encode())
    return digest.hexdigest()


@lru_cache
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - a file that was written anew has others
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
