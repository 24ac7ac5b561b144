"""Trained SAEs in SAELens' own formats, with errors that name the place."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from sae_lens import SAE
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors import safe_open

from sae_lens_contrastive.errors import UserError, first_line, unknown_choice
from sae_lens_contrastive.files import read_json

_DTYPES = ("F64", "F32", "F16", "BF16")


def check_folder(title: str, folder: Path) -> None:
    """Raise `UserError`, which begins with `title`, if no SAE was saved in a folder."""
    if not (folder / "cfg.json").is_file():
        raise UserError(f"{title}: no cfg.json in {folder}. Give a folder saved by sae.save_model.")


def load_folder(title: str, folder: Path, device: str) -> Any:
    """Load an SAE saved in a folder; `UserError`, which begins with `title`, if there is none or it is damaged."""
    check_folder(title, folder)
    try:
        _check_files(folder)
        return SAE.load_from_disk(folder, device=device)
    # It may come from anyone, and what is wrong with it shows as any error of the host.
    except Exception as error:
        raise UserError(
            f"{title}: {folder} is not a loadable SAE: {first_line(error)} Save or train it again."
        ) from error


def fold_decoder_norms(sae: Any) -> Any:
    """Move the lengths of decoder rows into the encoder, in place, where that changes no reconstruction."""
    # A TopK SAE that does not rescale by the norms would choose other features.
    with suppress(NotImplementedError):
        sae.fold_W_dec_norm()
    return sae


def _check_files(folder: Path) -> None:
    """Raise an error for what the host would take without a word or refuse without saying why."""
    config = read_json(folder / "cfg.json")
    if not isinstance(config, dict):
        raise UserError("cfg.json does not hold the fields of a configuration.")
    if (architecture := config.get("architecture")) not in SAE_CLASS_REGISTRY:
        raise unknown_choice("architecture", architecture, SAE_CLASS_REGISTRY)
    with safe_open(folder / "sae_weights.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - the file is no mapping
            if (dtype := weights.get_slice(name).get_dtype()) not in _DTYPES:
                raise UserError(f"{name} holds {dtype} numbers. Allowed: {', '.join(_DTYPES)}.")


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
