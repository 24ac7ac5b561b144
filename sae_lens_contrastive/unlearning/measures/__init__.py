"""What an edit does beyond the questions it was chosen by; each part is optional."""

from sae_lens_contrastive.unlearning.measures.chosen import MeasureOptions as MeasureOptions
from sae_lens_contrastive.unlearning.measures.chosen import MeasureResults as MeasureResults
from sae_lens_contrastive.unlearning.measures.chosen import ParaphraseResult as ParaphraseResult
from sae_lens_contrastive.unlearning.measures.chosen import RecallResults as RecallResults
from sae_lens_contrastive.unlearning.measures.edited_model import SaeEdit as SaeEdit
from sae_lens_contrastive.unlearning.measures.edited_model import WeightEdit as WeightEdit
from sae_lens_contrastive.unlearning.measures.random_baseline import RandomBaselineOptions as RandomBaselineOptions
from sae_lens_contrastive.unlearning.measures.random_baseline import RandomBaselineResult as RandomBaselineResult
from sae_lens_contrastive.unlearning.measures.random_baseline import random_baseline as random_baseline
from sae_lens_contrastive.unlearning.measures.recall import RecallOptions as RecallOptions
from sae_lens_contrastive.unlearning.measures.recall import RecallResult as RecallResult
from sae_lens_contrastive.unlearning.measures.recall import recall_result as recall_result
from sae_lens_contrastive.unlearning.measures.recall import recalled as recalled
from sae_lens_contrastive.unlearning.measures.relearning import RelearningOptions as RelearningOptions
from sae_lens_contrastive.unlearning.measures.relearning import RelearningResult as RelearningResult
from sae_lens_contrastive.unlearning.measures.relearning import relearning as relearning
from sae_lens_contrastive.unlearning.measures.text_effects import TextEffectsOptions as TextEffectsOptions
from sae_lens_contrastive.unlearning.measures.text_effects import TextEffectsResult as TextEffectsResult
from sae_lens_contrastive.unlearning.measures.text_effects import text_effects as text_effects
