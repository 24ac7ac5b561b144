"""Tensors that are made once and kept in a file, together with what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_lens_contrastive.distributed import by_first, n_ranks
from sae_lens_contrastive.files import made_once, written_whole

_MADE_FROM = "fingerprint"


def keep_tensors(path: Path, fingerprint: str, make: Callable[[], Mapping[str, Tensor]]) -> Path:
    """Make sure that a safetensors file holds the tensors of this fingerprint, which says what they are made from.

    A whole file of the same fingerprint stays as it is, also one that another process is about to write. Where ranks
    train together all of them make the tensors, and the first one writes them. Raises `UserError` if there is no room.
    """
    if n_ranks() == 1:
        with made_once(path):
            if _fingerprint(path) != fingerprint:
                _write(path, fingerprint, make())
    elif by_first(lambda: _fingerprint(path)) != fingerprint:
        tensors = make()
        by_first(lambda: _write(path, fingerprint, tensors))
    return path


def kept_tensors(path: Path, fingerprint: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of `keep_tensors`, mapped from their file: processes that read it share its memory."""
    return load_file(keep_tensors(path, fingerprint, make))


def _write(path: Path, fingerprint: str, tensors: Mapping[str, Tensor]) -> None:
    with written_whole(path) as temporary:
        kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(kept, temporary, {_MADE_FROM: fingerprint})


def _fingerprint(path: Path) -> str | None:
    """What the tensors of a file were made from; None if it is not there or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(_MADE_FROM)
    except (OSError, SafetensorError):
        return None
