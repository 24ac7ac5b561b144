"""What a training run's `trackers.json` holds, checked when it is read."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.report.saved_rows import first_mistake

TRACKERS_FILE = "trackers.json"


class _Record(BaseModel):
    """A number that was not finite is saved as null; keys that no figure shows are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class ClusterChanges(_Record):
    """A grouping against the one before it."""

    n_kept: int
    """Groups that stayed."""
    n_split: int
    """Groups that came apart."""
    n_merged: int
    """Groups that came together."""
    n_born: int
    """Groups that are new."""
    n_died: int
    """Groups that are gone."""
    adjusted_rand_index: float | None
    """Agreement of the two groupings; 1 is identical, 0 is chance."""


class GroupingRecord(_Record):
    """One grouping of the features by their correlations."""

    step: int
    """Training step."""
    threshold: float | None
    """Correlation that joins features."""
    n_groups: int
    """Groups formed."""
    n_grouped: int
    """Features in a group."""
    p50: float | None
    """Median of |C| over pairs that co-fired."""
    p75: float | None
    """75th percentile of the same."""
    p85: float | None
    """85th percentile of the same."""
    p95: float | None
    """95th percentile of the same."""
    p99: float | None
    """99th percentile of the same."""
    clusters: ClusterChanges | None
    """What changed since the grouping before; null for the first."""
    sizes: tuple[int, ...]
    """Sizes of the largest groups."""


class ImportanceQuantiles(_Record):
    """Percentiles of the importance over the features."""

    p10: float | None
    """10th percentile."""
    p25: float | None
    """25th percentile."""
    p50: float | None
    """Median."""
    p75: float | None
    """75th percentile."""
    p90: float | None
    """90th percentile."""
    p99: float | None
    """99th percentile."""


class ImportanceRecord(_Record):
    """Importance of the features."""

    step: int
    """Training step."""
    quantiles: ImportanceQuantiles
    """Its distribution."""
    n_below_threshold: int
    """Features below the importance threshold."""


class PruningRecord(_Record):
    """One pruning."""

    step: int
    """Training step."""
    n_pruned: int
    """Features masked."""


class ReinitialisationRecord(_Record):
    """One reinitialisation."""

    step: int
    """Training step."""
    n_reinitialised: int
    """Features given a new direction."""
    n_alive_again: int | None
    """Of those reinitialised the time before, how many fire."""


class StabilityRecord(_Record):
    """The features against themselves some steps ago."""

    step: int
    """Training step."""
    decoder_cosine_mean: float | None
    """Mean over features of the cosine of a decoder row with itself."""
    decoder_cosine_p5: float | None
    """5th percentile of the same."""
    adjusted_rand_index: float | None
    """Agreement of successive groupings."""
    importance_spearman: float | None
    """Rank correlation of successive importances."""


class CurriculumRecord(_Record):
    """The start of a stage."""

    step: int
    """First training step of the stage."""
    stage: str
    """Name of the stage."""


class TrackerRecords(_Record):
    """Everything the parts of one run recorded, in order of steps."""

    grouping: tuple[GroupingRecord, ...] = ()
    """Correlation groups."""
    importance: tuple[ImportanceRecord, ...] = ()
    """Feature importance."""
    pruning: tuple[PruningRecord, ...] = ()
    """Masked features."""
    reinitialisation: tuple[ReinitialisationRecord, ...] = ()
    """Features started anew."""
    stability: tuple[StabilityRecord, ...] = ()
    """Drift of features, groups and importances."""
    curriculum: tuple[CurriculumRecord, ...] = ()
    """Stages."""


def load_trackers(folder: Path) -> TrackerRecords:
    """Read the `trackers.json` of a run folder; no records if there is none, `UserError` if it is damaged."""
    path = folder / TRACKERS_FILE
    if not path.is_file():
        return TrackerRecords()
    content = read_json(path)
    try:
        return TrackerRecords.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold tracker records ({first_mistake(error)}). Run the training again."
        ) from None
