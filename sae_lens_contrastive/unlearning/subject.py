"""The SAEs under test: where they are, and whether they can be evaluated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from pydantic import model_validator
from torch import Tensor

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import check_editable
from sae_lens_contrastive.models import weights_digest
from sae_lens_contrastive.saes.stock import fold_decoder_norms, load_folder, load_release
from sae_lens_contrastive.unlearning.ensemble import Ensemble


class SaeUnderTest(StrictModel):
    """What is evaluated: an SAE in a folder, one of a SAELens release, or an ensemble of folders."""

    variant: str
    """Named set of loss terms, trackers and surgeries it was trained with."""
    seed: int = 0
    """Seed it was trained with."""
    path: Path | None = None
    """Folder of an inference SAE, as `warm_start.path` is."""
    release: str | None = None
    """Release name or Hugging Face repository, as `SAE.from_pretrained` takes it."""
    sae_id: str | None = None
    """Id within the release."""
    members: tuple[Path, ...] = ()
    """Folders of SAEs of one hook that act together, as an `Ensemble`."""

    @model_validator(mode="after")
    def _has_one_place(self) -> SaeUnderTest:
        from_hub = self.release is not None and self.sae_id is not None
        if from_hub + (self.path is not None) + bool(self.members) != 1:
            raise ValueError("give either path, or release and sae_id, or members.")
        return self


@dataclass(frozen=True)
class SaeFacts:
    """What is known of a checked SAE without keeping it in memory."""

    hook_name: str
    """Hook whose activations it reads."""
    d_in: int
    """Width of these activations."""
    d_sae: int
    """Features of its dictionary."""
    sha256: str
    """Hash of its weights and configuration."""
    config: dict[str, Any] | None
    """Its configuration; None for an ensemble."""


def load_sae(name: str, subject: SaeUnderTest, device: str) -> Any:
    """Load an SAE; `UserError` for a missing or unreadable one, or a hub that cannot be reached.

    Norms of decoder rows are folded into the encoder where that changes no reconstruction, so that a multiplier means
    the same for every SAE; SAEBench does so too.
    """
    title = f"SAE {name!r}"
    if subject.path is not None:
        return fold_decoder_norms(load_folder(title, subject.path, device))
    if subject.members:
        return Ensemble(
            [f"{path} of {name!r}" for path in subject.members],
            [fold_decoder_norms(load_folder(title, path, device)) for path in subject.members],
        )
    assert subject.release is not None
    assert subject.sae_id is not None
    return fold_decoder_norms(load_release(title, subject.release, subject.sae_id, device))


def check_sae(name: str, subject: SaeUnderTest, device: str) -> SaeFacts:
    """Load an SAE, check that it can be evaluated, and let it go.

    Raises `UserError` if it cannot be loaded or edited, has weights that are not finite, or names no hook; for an
    ensemble, if that holds of a member or the members do not agree.
    """
    sae = load_sae(name, subject, device)
    if not isinstance(sae, Ensemble):
        return SaeFacts(_check_one(f"SAE {name!r}", sae), sae.cfg.d_in, sae.cfg.d_sae, _digest(sae), sae.cfg.to_dict())
    members = list(zip(subject.members, sae.members, strict=True))
    hook_names = [_check_one(f"SAE {name!r}, member {path}", member) for path, member in members]
    digests = "".join(_digest(member) for _, member in members)
    return SaeFacts(hook_names[0], sae.cfg.d_in, sae.cfg.d_sae, hashlib.sha256(digests.encode()).hexdigest(), None)


def reserved_features(sae: Any) -> Bool[Tensor, " d_sae"]:
    """Features that a loss term set aside for the forget domain in training; of an ensemble, those of all members."""
    if isinstance(sae, Ensemble):
        return torch.cat([reserved_features(member) for member in sae.members])
    return torch.arange(int(sae.cfg.d_sae)) < (sae.cfg.metadata.n_reserved_features or 0)


def _check_one(title: str, sae: Any) -> str:
    """Hook of an SAE that can be evaluated."""
    check_editable(sae, title)
    for weight, tensor in sae.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{title}: {weight} has values that are not finite. Its training diverged; repeat it.")
    n_reserved = sae.cfg.metadata.n_reserved_features
    if n_reserved is not None and not (isinstance(n_reserved, int) and 0 <= n_reserved <= sae.cfg.d_sae):
        raise UserError(
            f"{title}: n_reserved_features in its cfg.json is {n_reserved!r}. Allowed: 0 to {sae.cfg.d_sae}, or null."
        )
    hook_name = sae.cfg.metadata.hook_name
    if not isinstance(hook_name, str) or not hook_name:
        raise UserError(f"{title}: its cfg.json names no hook. Set metadata.hook_name, e.g. blocks.19.hook_resid_post.")
    return hook_name


def _digest(sae: Any) -> str:
    config = {key: value for key, value in sae.cfg.to_dict().items() if key != "device"}
    return weights_digest(sae.state_dict(), json.dumps(config, sort_keys=True, default=str))
