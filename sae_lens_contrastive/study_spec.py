"""The file of a study: its settings, seeds and evaluations."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from sae_lens_contrastive.config import StrictModel, distinct_seeds
from sae_lens_contrastive.errors import ConfigError

PLAIN = "plain"
"""Folder of a setting's own evaluation."""


class StudySetting(StrictModel):
    """One way to run a list of variants."""

    description: str = ""
    """What the setting is for."""
    variants: list[str] = Field(min_length=1)
    """Variant files, relative to the study file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Changes to every run of the setting, as in a variant file."""
    seeds: list[int] | None = Field(default=None, min_length=1)
    """Those of the study's seeds that the setting has; None means all."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Changes to the evaluation specification, such as another forget domain."""
    evaluations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further evaluations of the same SAEs: changes to the setting's specification, by a name that is added to the
    variant's in the results, as in `baseline, gated`."""


class StudySpec(StrictModel):
    """What a study trains and how it is evaluated."""

    target: str
    """Target file, relative to the study file."""
    spec: str
    """Evaluation specification, relative to the study file."""
    seeds: list[int] = Field(min_length=1)
    """Seeds; every variant is trained once with each."""
    settings: dict[str, StudySetting] = Field(min_length=1)
    """Settings by name."""

    _seeds_are_distinct = field_validator("seeds")(distinct_seeds)

    @model_validator(mode="after")
    def _settings_have_known_seeds_and_folder_names(self) -> StudySpec:
        for name, setting in self.settings.items():
            for each in (name, *setting.evaluations):
                if not re.fullmatch(r"\w[\w.-]*", each):
                    raise ConfigError(
                        f"settings: {each!r} cannot name a setting or an evaluation: it becomes a folder. Use letters, "
                        "digits and '_', '.', '-'."
                    )
            if PLAIN in setting.evaluations:
                raise ConfigError(
                    f"settings.{name}.evaluations: {PLAIN!r} is the folder of the setting's own evaluation. Give "
                    "the further one another name."
                )
            if unknown := set(setting.seeds or ()) - set(self.seeds):
                raise ConfigError(f"settings.{name}.seeds has {sorted(unknown)}, which are not in seeds {self.seeds}.")
        return self
