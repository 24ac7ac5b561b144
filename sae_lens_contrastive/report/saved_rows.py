"""What `results.json`, `history.json` and `summary.json` hold, as far as a table or a figure reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from sae_lens_contrastive.errors import UserError

# Control characters would speak to the terminal, and a long name would make a picture of its own size.
_Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_Number = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, le=2**62)]


class _Saved(BaseModel):
    """Keys that nothing reads are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


_Options = dict[_Name, _Number | bool | _Name | None]


class _Setting(_Saved):
    selector: _Name
    selector_options: _Options
    n_features: _Count | None = None
    intervention: _Name = ""
    intervention_options: _Options = Field(default_factory=dict)
    n_surviving: _Count
    forget_accuracy: _Share
    retain_accuracy: _Share


class _HeldOut(_Saved):
    forget_accuracy: _Share
    chance: Annotated[float, Field(ge=0, lt=1)]
    forgetting: _Number
    retain_accuracy: _Share
    ci95: tuple[_Share, _Share]


class _RandomBaseline(_Saved):
    mean_forget_accuracy: _Share
    p_value: _Share


class _TextEffect(_Saved):
    loss: _Number
    edited_loss: _Number
    kl: _Number


class _TextEffects(_Saved):
    forget: _TextEffect
    retain: _TextEffect


class _Paraphrases(_Saved):
    accuracy: _Share


class _RecallSide(_Saved):
    before: _Share
    after: _Share


class _Recall(_Saved):
    forget: _RecallSide
    retain: _RecallSide


class _Relearning(_Saved):
    steps: Annotated[list[_Count], Field(min_length=1)]
    accuracy: Annotated[list[_Share], Field(min_length=1)]
    unedited_accuracy: _Share

    @model_validator(mode="after")
    def _are_points(self) -> _Relearning:
        if len(self.steps) != len(self.accuracy):
            raise ValueError("steps and accuracy differ in length")
        return self


class _Measures(_Saved):
    random_baseline: _RandomBaseline | None = None
    text_effects: _TextEffects | None = None
    paraphrases: _Paraphrases | None = None
    recall: _Recall | None = None
    relearning: _Relearning | None = None


class _Provenance(_Saved):
    sae_sha256: _Name
    model_sha256: _Name
    spec_sha256: _Name
    versions: dict[_Name, _Name]


class _Row(_Saved):
    variant: _Name
    seed: _Count
    forget_domain: _Name
    unlearning_score: _Share
    held_out: _HeldOut
    cause_of_zero: _Name | None
    study_setting: _Name = ""
    below_chance: bool = False
    retain_gate: _Share | None = None
    n_settings_passing: _Count = 0
    setting: _Setting | None = None
    frontier: list[_Setting] = Field(default_factory=list)
    measures: _Measures | None = None
    provenance: _Provenance | None = None
    explained_variance: _Number | None = None
    l0: _Number | None = None
    d_sae: _Count | None = None
    layer: _Count | None = None

    @model_validator(mode="after")
    def _has_a_gate(self) -> _Row:
        if self.frontier and self.retain_gate is None:
            raise ValueError("retain_gate is missing")
        return self


class _Summary(_Saved):
    variant: _Name
    seed: _Count


class _Run(_Saved):
    kind: _Name
    config: dict[str, Any]


_ROWS = TypeAdapter(list[_Row])
_RECORDS = TypeAdapter(list[dict[_Name, _Number | None]])


def checked_rows(rows: Any, path: Path) -> list[dict[str, Any]]:
    """Rows of evaluation results as they are; `UserError` names the first value that cannot be one."""
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        raise UserError(
            f"{path} is not a list of evaluation results ({first_mistake(error)}). Run the evaluation again."
        ) from None
    return rows


def checked_records(records: Any, path: Path) -> list[dict[str, float]]:
    """Records of a training history as they are; `UserError` names the first value that cannot be one."""
    try:
        _RECORDS.validate_python(records)
    except ValidationError as error:
        raise UserError(f"{path} is not a training history ({first_mistake(error)}). Run the training again.") from None
    for number, record in enumerate(records):
        if not isinstance(record.get("step"), int):
            raise UserError(f"{path} is not a training history ({number}: no step). Run the training again.")
    return records


def checked_summary(summary: Any, path: Path) -> dict[str, Any]:
    """Summary of a training run as it is; `UserError` names the first value that cannot be one."""
    try:
        _Summary.model_validate(summary)
    except ValidationError as error:
        raise UserError(
            f"{path} is not the summary of a training run ({first_mistake(error)}). Run it again."
        ) from None
    return summary


def checked_run(run: Any, path: Path) -> dict[str, Any]:
    """Kind and resolved configuration of a run as they are; `UserError` names the first value that cannot be one."""
    try:
        _Run.model_validate(run)
    except ValidationError as error:
        raise UserError(f"{path} is not what a run wrote ({first_mistake(error)}). Run it again.") from None
    return run


def first_mistake(error: ValidationError) -> str:
    """Place and message of the first value that a schema refuses."""
    details = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in details["loc"])
    return f"{place}: {details['msg']}" if place else details["msg"]
