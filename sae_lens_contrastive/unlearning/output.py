"""The result of an evaluation, as it is saved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.unlearning.measures import MeasureResults
from sae_lens_contrastive.unlearning.settings import OptionValue

CauseOfZero = Literal["no_features", "no_effect", "retain_gate", "unknown_questions"]


class SettingResult(StrictModel):
    """One setting; accuracies are shares of known questions that are still answered right."""

    selector: str
    """What ranked the features."""
    selector_options: dict[str, OptionValue]
    """Its options, such as `retain_threshold`."""
    n_features: int
    """Number of features asked for."""
    intervention: str
    """What was done to them."""
    intervention_options: dict[str, OptionValue]
    """Its options, such as `multiplier`."""
    n_surviving: int
    """Features that the selector lets through."""
    n_selected: int
    """Features edited: the smaller of the two numbers above; where weights are edited, these."""
    forget_accuracy: float
    """Forget questions of the split `select`."""
    retain_accuracy: float
    """Retain questions of the split `select`, all domains pooled."""
    forget_accuracy_all: float | None = None
    """Forget questions of both splits; None where only `select` was put."""
    retain_accuracy_all: float | None = None
    """Retain questions of both splits, all domains pooled; None where only `select` was put."""


class HeldOut(StrictModel):
    """The known `held_out` questions at the setting chosen on the `select` questions."""

    forget_accuracy: float
    """Share of the known forget questions still answered right."""
    chance: float
    """Mean of 1 / number of options over the same questions."""
    forgetting: float
    """min(1, (1 - forget_accuracy) / (1 - chance)): 0 is unchanged, 1 is chance or below."""
    retain_accuracy: float
    """Share of the known retain questions still answered right, all domains pooled."""
    ci95: tuple[float, float]
    """95 % bootstrap interval of `forget_accuracy`, over entities."""


class KnownCounts(StrictModel):
    """Questions that the unedited model answers right under every phrasing, of those put to it."""

    forget_select: tuple[int, int]
    """Known and put: forget questions, `select`."""
    forget_held_out: tuple[int, int]
    """Known and put: forget questions, `held_out`."""
    retain_select: tuple[int, int]
    """Known and put: retain questions, `select`."""
    retain_held_out: tuple[int, int]
    """Known and put: retain questions, `held_out`."""
    near: tuple[int, int] = (0, 0)
    """Known and put: questions of near domains, `held_out`."""


class MemberFeatures(StrictModel):
    """The part of one SAE in an edit by an ensemble."""

    path: str
    """Folder of the SAE."""
    features: list[int]
    """Features edited, in this SAE's own indices, in the order of the selector, best first."""


class Provenance(StrictModel):
    """What a result depends on; a saved result is used again only if all of it agrees."""

    sae_sha256: str
    """Weights and configuration of the SAE."""
    model_sha256: str
    """Weights of the model, its configuration and its tokenizer."""
    spec_sha256: str
    """Specification, questions and corpora."""
    versions: dict[str, str]
    """Versions of the packages that compute the result."""


class UnlearningResult(StrictModel):
    """One SAE evaluated.

    Where no setting is chosen, `held_out` describes the unedited model: accuracy 1 on what it knows,
    forgetting 0.
    """

    name: str
    """Name of the SAE among those evaluated together."""
    variant: str
    """Named set of loss terms, trackers and surgeries it was trained with."""
    seed: int
    """Seed it was trained with."""
    forget_domain: str
    """What was to be forgotten."""
    unlearning_score: float
    """SAEBench's: 1 - the lowest forget accuracy over settings that keep retain accuracy at the gate, on the questions
    of both splits; 0 if there is none."""
    held_out: HeldOut
    """The chosen setting on questions that had no part in the choice."""
    cause_of_zero: CauseOfZero | None
    """Why the score is 0; None if it is not."""
    retain_gate: float
    """Retain accuracy that a setting must keep to count."""
    n_settings_passing: int
    """Settings that edit a feature and keep retain accuracy on `select` at the gate."""
    seconds: float
    """Time spent on this SAE alone; what SAEs of one hook share is not in it."""
    below_chance: bool
    """Whether held-out forget accuracy is below chance: the model is made to answer wrongly, not to
    forget."""
    setting: SettingResult | None
    """The setting chosen on the `select` questions."""
    gate_threshold: float | None
    """Share of a prompt's tokens with a firing feature above which a `gated` intervention edits; None for others."""
    features: list[int]
    """Features edited at that setting; of an ensemble, indices into its members' dictionaries one after another."""
    members: list[MemberFeatures] = Field(default_factory=list)
    """The same features by member of an ensemble; empty for a single SAE."""
    retain_accuracy_by_domain: dict[str, float]
    """Held-out retain accuracy of each domain at that setting."""
    near_accuracy: float | None = None
    """Share of the known `held_out` questions of near domains still answered right at that setting; None without any.
    They have no say in the choice."""
    near_accuracy_by_domain: dict[str, float]
    """The same for each near domain."""
    measures: MeasureResults = MeasureResults()
    """What else was measured at that setting."""
    known: KnownCounts
    """How many questions the unedited model knows."""
    frontier: list[SettingResult]
    """Every setting tried."""
    provenance: Provenance
    """What the result depends on."""
