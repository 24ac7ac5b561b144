"""A forget edit: which features of an SAE are edited, and how, as a file that says all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from sae_lens_contrastive.config import StrictModel, parse_config
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.interventions import FittedGated, Gated, Intervention, decoder_rows, intervention_class
from sae_lens_contrastive.options import build_options

FORGET_EDIT_FILE = "forget_edit.json"
"""Name of the file beside an SAE."""

_N_COMPONENTS = 4
_TOLERANCE = 0.02


class ForgetEdit(StrictModel):
    """Features of an SAE at a hook, and the intervention that edits them.

    The new residual stream at the hook is resid + (z_new - z)[features] @ W_dec[features], with decoder rows of length
    1: where an SAE has others, their lengths belong to the activations.
    """

    format_version: Literal[1] = 1
    """Version of this format."""
    model: str = ""
    """Model that it was chosen on."""
    forget_domain: str = ""
    """Domain that it is to make the model forget."""
    hook_name: str
    """Hook whose residual stream the SAE reads."""
    d_sae: PositiveInt
    """Features of the SAE."""
    features: list[NonNegativeInt] = Field(min_length=1)
    """Indices of the edited features."""
    directions: list[list[float]]
    """First four components of each feature's decoder row, divided by its length: by them the SAE is recognised."""
    intervention: str
    """Registered name of what is done to the features."""
    intervention_options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    """Its options."""
    gate_threshold: float | None = Field(default=None, ge=0, le=1)
    """Share of a prompt's tokens with a firing feature above which a `gated` intervention edits; None for others."""
    edit_special_tokens: bool = False
    """Whether special tokens are edited too; the first token of a sequence never is."""

    @model_validator(mode="after")
    def _is_whole(self) -> ForgetEdit:
        if len(set(self.features)) != len(self.features) or max(self.features) >= self.d_sae:
            raise ConfigError(f"features must be distinct and below d_sae ({self.d_sae}), got {self.features}.")
        if len(self.directions) != len(self.features) or any(len(d) != _N_COMPONENTS for d in self.directions):
            raise ConfigError(
                f"directions must hold {_N_COMPONENTS} numbers for each of the {len(self.features)} features."
            )
        self.built()
        return self

    def built(self) -> Intervention:
        """The intervention; `ConfigError` for an unknown one, wrong options, or a gate without its threshold."""
        where = f"intervention_options of {self.intervention!r}"
        intervention = build_options(where, intervention_class(self.intervention), self.intervention_options)
        if isinstance(intervention, Gated) != (self.gate_threshold is not None):
            raise ConfigError(
                f"gate_threshold is {self.gate_threshold} for {self.intervention!r}: a gate has one, nothing else."
            )
        if isinstance(intervention, Gated):
            assert self.gate_threshold is not None
            return FittedGated(intervention, self.gate_threshold)
        if intervention.needs_retain_text:
            raise ConfigError(
                f"{self.intervention!r} is fitted on retain text, which only 'gated' can do without here."
            )
        return intervention

    def check_sae(self, sae: Any) -> None:
        """Raise `UserError` unless an SAE, its decoder rows of whatever length, is the one of this edit."""
        if int(sae.cfg.d_sae) != self.d_sae:
            raise UserError(f"The edit is for an SAE of {self.d_sae} features, this one has {sae.cfg.d_sae}.")
        for feature, own, wanted in zip(self.features, directions(sae, self.features), self.directions, strict=True):
            if max(abs(a - b) for a, b in zip(own, wanted, strict=True)) > _TOLERANCE:
                raise UserError(
                    f"The edit is for another SAE: feature {feature} points elsewhere. Give the SAE it is beside."
                )


def directions(sae: Any, features: list[int]) -> list[list[float]]:
    """First components of the decoder rows of features, divided by their lengths; zeros for a row of zeros."""
    return torch.nn.functional.normalize(decoder_rows(sae, features), dim=1)[:, :_N_COMPONENTS].tolist()


def save_forget_edit(edit: ForgetEdit, path: Path) -> Path:
    """Write an edit to a file, or as `forget_edit.json` into a folder."""
    return write_json(path / FORGET_EDIT_FILE if path.is_dir() else path, edit.model_dump(mode="json"))


def load_forget_edit(path: Path | str) -> ForgetEdit:
    """Read an edit from a file, or from `forget_edit.json` in a folder; `UserError` if there is none that is whole."""
    path = Path(path)
    path = path / FORGET_EDIT_FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"No forget edit at {path}. An evaluation writes one as forget_edits/NAME.json into its --out.")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no forget edit. Give one that an evaluation wrote.")
    return parse_config(ForgetEdit, content, source=str(path))
