"""What weights are, as a hash."""

from __future__ import annotations

import hashlib
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
