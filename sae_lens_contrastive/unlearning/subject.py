"""The SAEs under test: where they are, and whether they can be evaluated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from sae_lens import SAE
from safetensors import SafetensorError

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import check_editable


class SaeUnderTest(StrictModel):
    """One SAE to evaluate: a folder, or a release of SAELens and the id within it."""

    variant: str
    """Named set of loss terms, trackers and surgeries it was trained with."""
    seed: int = 0
    """Seed it was trained with."""
    path: Path | None = None
    """Folder saved by `save_model` or `save_inference_model`."""
    release: str | None = None
    """Release name or Hugging Face repository, as `SAE.from_pretrained` takes it."""
    sae_id: str | None = None
    """Id within the release."""

    @model_validator(mode="after")
    def _has_one_place(self) -> SaeUnderTest:
        from_hub = self.release is not None and self.sae_id is not None
        if from_hub == (self.path is not None):
            raise ValueError("give either path, or release and sae_id.")
        return self


@dataclass(frozen=True)
class SaeFacts:
    """What is known of a checked SAE without keeping it in memory."""

    hook_name: str
    """Hook whose activations it reads."""
    d_in: int
    """Width of these activations."""
    sha256: str
    """Hash of its weights and configuration."""


def load_sae(name: str, subject: SaeUnderTest, device: str) -> Any:
    """Load an SAE; `UserError` for a missing or unreadable one, or a hub that cannot be reached."""
    if subject.path is not None:
        return _load_folder(name, subject.path, device)
    assert subject.release is not None
    assert subject.sae_id is not None
    try:
        return SAE.from_pretrained(subject.release, subject.sae_id, device=device)
    # The hub client raises errors of its HTTP library, which differs between its versions.
    except Exception as error:
        raise UserError(
            f"SAE {name!r}: release {subject.release!r}, id {subject.sae_id!r} could not be loaded: "
            f"{_first_line(error)} Check the names and the network, or give the path of a local folder."
        ) from error


def check_sae(name: str, subject: SaeUnderTest, device: str) -> SaeFacts:
    """Load an SAE, check that it can be evaluated, and let it go.

    Raises `UserError` if it cannot be loaded or edited, has weights that are not finite, or names no hook.
    """
    sae = load_sae(name, subject, device)
    check_editable(sae, f"SAE {name!r}")
    for weight, tensor in sae.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"SAE {name!r}: {weight} has values that are not finite. Its training diverged; repeat it.")
    if not sae.cfg.metadata.hook_name:
        raise UserError(
            f"SAE {name!r}: its cfg.json names no hook. Set metadata.hook_name, e.g. blocks.19.hook_resid_post."
        )
    return SaeFacts(hook_name=sae.cfg.metadata.hook_name, d_in=sae.cfg.d_in, sha256=_digest(sae))


def _load_folder(name: str, folder: Path, device: str) -> Any:
    if not (folder / "cfg.json").is_file():
        raise UserError(f"SAE {name!r}: no cfg.json in {folder}. Give a folder saved by sae.save_model.")
    try:
        return SAE.load_from_disk(folder, device=device)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"SAE {name!r}: {folder} is not a loadable SAE: {_first_line(error)} Save or train it again."
        ) from error


def _digest(sae: Any) -> str:
    config = {key: value for key, value in sae.cfg.to_dict().items() if key != "device"}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
