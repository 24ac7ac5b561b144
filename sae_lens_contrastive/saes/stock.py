"""Trained SAEs in SAELens' own formats, with errors that name the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens import SAE
from safetensors import SafetensorError

from sae_lens_contrastive.errors import UserError


def load_folder(title: str, folder: Path, device: str) -> Any:
    """Load an SAE saved in a folder; `UserError`, which begins with `title`, if there is none or it is damaged."""
    if not (folder / "cfg.json").is_file():
        raise UserError(f"{title}: no cfg.json in {folder}. Give a folder saved by sae.save_model.")
    try:
        return SAE.load_from_disk(folder, device=device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{title}: {folder} is not a loadable SAE: {_first_line(error)} Save or train it again."
        ) from error


def load_release(title: str, release: str, sae_id: str, device: str) -> Any:
    """Load an SAE of a SAELens release; `UserError`, which begins with `title`, if the hub does not give it."""
    try:
        return SAE.from_pretrained(release, sae_id, device=device)
    # The hub client raises errors of its HTTP library, which differs between its versions.
    except Exception as error:
        raise UserError(
            f"{title}: release {release!r}, id {sae_id!r} could not be loaded: {_first_line(error)} Check the names "
            "and the network, or give the path of a local folder."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
