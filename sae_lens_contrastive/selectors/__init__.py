"""Which features to edit: rankings made from what features do on forget and on retain text."""

from sae_lens_contrastive.selectors.activation_ratio import ActivationRatio as ActivationRatio
from sae_lens_contrastive.selectors.attribution import Attribution as Attribution
from sae_lens_contrastive.selectors.base import SELECTORS as SELECTORS
from sae_lens_contrastive.selectors.base import Selector as Selector
from sae_lens_contrastive.selectors.base import ranked as ranked
from sae_lens_contrastive.selectors.base import register_selector as register_selector
from sae_lens_contrastive.selectors.base import selector_class as selector_class
from sae_lens_contrastive.selectors.firing_rate import FiringRate as FiringRate
from sae_lens_contrastive.selectors.importance import Importance as Importance
from sae_lens_contrastive.selectors.mutual_information import MutualInformation as MutualInformation
from sae_lens_contrastive.selectors.reserved import Reserved as Reserved
from sae_lens_contrastive.selectors.statistics import CorpusStatistics as CorpusStatistics
from sae_lens_contrastive.selectors.statistics import Evidence as Evidence
from sae_lens_contrastive.selectors.statistics import corpus_statistics as corpus_statistics
