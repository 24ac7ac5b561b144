"""Tensors that are made once and kept in a file, together with what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lens_contrastive.files import made_once, written_whole

_MADE_FROM = "fingerprint"


def keep_tensors(path: Path, fingerprint: str, make: Callable[[], Mapping[str, Tensor]]) -> Path:
    """Make sure that a safetensors file holds the tensors of this fingerprint, which says what they are made from.

    A whole file of the same fingerprint stays as it is, also one that another process is about to write.
    Raises `UserError` if there is no room.
    """
    with made_once(path):
        if _fingerprint(path) != fingerprint:
            tensors = {name: tensor.contiguous().cpu() for name, tensor in make().items()}
            with written_whole(path) as temporary:
                save_file(tensors, temporary, {_MADE_FROM: fingerprint})
    return path


def kept_tensors(path: Path, fingerprint: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of `keep_tensors`, mapped from their file: processes that read it share its memory."""
    return load_file(keep_tensors(path, fingerprint, make))


def _fingerprint(path: Path) -> str | None:
    """What the tensors of a file were made from; None if it is not there or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(_MADE_FROM)
    except (OSError, SafetensorError):
        return None
