"""Which measures are taken, and what they found."""

from __future__ import annotations

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.unlearning.measures.random_baseline import RandomBaselineOptions, RandomBaselineResult
from sae_lens_contrastive.unlearning.measures.recall import RecallOptions, RecallResult
from sae_lens_contrastive.unlearning.measures.reconstruction import ReconstructionOptions, ReconstructionResult
from sae_lens_contrastive.unlearning.measures.relearning import RelearningOptions, RelearningResult
from sae_lens_contrastive.unlearning.measures.text_effects import TextEffectsOptions, TextEffectsResult


class MeasureOptions(StrictModel):
    """Measures at the chosen setting; null switches one off, {} takes its defaults."""

    text_effects: TextEffectsOptions | None = TextEffectsOptions()
    """Loss and next-token KL on text of both corpora."""
    random_baseline: RandomBaselineOptions | None = RandomBaselineOptions()
    """Random features of the same firing rate, on the held-out questions."""
    paraphrases: bool = False
    """Whether the other phrasings of the held-out forget questions are put under the edit."""
    recall: RecallOptions | None = None
    """Greedy open-ended answers to the held-out questions."""
    relearning: RelearningOptions | None = None
    """How fast fine-tuning on a few forget examples brings the held-out answers back."""
    reconstruction: ReconstructionOptions | None = None
    """Explained variance and loss recovered of the SAE on retain text, unedited; not of an ensemble."""


class ParaphraseResult(StrictModel):
    """Other phrasings of the known held-out forget questions; the unedited model answers all of them right."""

    n_paraphrases: int
    """Number of phrasings put, the first of each question left out."""
    accuracy: float
    """Share of them still answered right."""


class RecallResults(StrictModel):
    """Open-ended answers to the known held-out questions of either side."""

    forget: RecallResult
    """Forget questions."""
    retain: RecallResult
    """Retain questions."""


class MeasureResults(StrictModel):
    """What was measured at the chosen setting; None where a measure was off or no setting was chosen."""

    text_effects: TextEffectsResult | None = None
    """Loss and next-token KL on text of both corpora."""
    random_baseline: RandomBaselineResult | None = None
    """Random features of the same firing rate, on the held-out questions."""
    paraphrases: ParaphraseResult | None = None
    """Other phrasings of the held-out forget questions."""
    recall: RecallResults | None = None
    """Greedy open-ended answers to the held-out questions."""
    relearning: RelearningResult | None = None
    """Fine-tuning on a few forget examples with the edit in place."""
    reconstruction: ReconstructionResult | None = None
    """The SAE's reconstruction of retain text."""
