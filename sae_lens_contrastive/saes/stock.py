"""Trained SAEs in SAELens' own formats, with errors that name the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens import SAE
from safetensors import SafetensorError

from sae_lens_contrastive.errors import UserError, first_line


def check_folder(title: str, folder: Path) -> None:
    """Raise `UserError`, which begins with `title`, if no SAE was saved in a folder."""
    if not (folder / "cfg.json").is_file():
        raise UserError(f"{title}: no cfg.json in {folder}. Give a folder saved by sae.save_model.")


def load_folder(title: str, folder: Path, device: str) -> Any:
    """Load an SAE saved in a folder; `UserError`, which begins with `title`, if there is none or it is damaged."""
    check_folder(title, folder)
    try:
        return SAE.load_from_disk(folder, device=device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{title}: {folder} is not a loadable SAE: {first_line(error)} Save or train it again."
        ) from error


def load_release(title: str, release: str, sae_id: str, device: str) -> Any:
    """Load an SAE of a SAELens release; `UserError`, which begins with `title`, if the hub does not give it."""
    try:
        return SAE.from_pretrained(release, sae_id, device=device)
    # The hub client raises errors of its HTTP library, which differs between its versions.
    except Exception as error:
        raise UserError(
            f"{title}: release {release!r}, id {sae_id!r} could not be loaded: {first_line(error)} Check the names "
            "and the network, or give the path of a local folder."
        ) from error
