"""Loss terms; importing this package registers the ones it ships."""

from sae_lens_contrastive.losses.base import FORGET as FORGET
from sae_lens_contrastive.losses.base import GENERAL as GENERAL
from sae_lens_contrastive.losses.base import LOSS_TERMS as LOSS_TERMS
from sae_lens_contrastive.losses.base import RETAIN as RETAIN
from sae_lens_contrastive.losses.base import LossContext as LossContext
from sae_lens_contrastive.losses.base import LossTerm as LossTerm
from sae_lens_contrastive.losses.base import WeightedTerm as WeightedTerm
from sae_lens_contrastive.losses.base import build_loss_terms as build_loss_terms
from sae_lens_contrastive.losses.base import register_loss_term as register_loss_term
from sae_lens_contrastive.losses.feature_kl import FeatureKL as FeatureKL
from sae_lens_contrastive.losses.forget_margin import ForgetMargin as ForgetMargin
from sae_lens_contrastive.losses.group_contrastive import GroupContrastive as GroupContrastive
from sae_lens_contrastive.losses.mutual_information import MutualInformation as MutualInformation
from sae_lens_contrastive.losses.objectives import OBJECTIVES as OBJECTIVES
from sae_lens_contrastive.losses.objectives import ForgetPredictions as ForgetPredictions
from sae_lens_contrastive.losses.objectives import UnlearningObjective as UnlearningObjective
from sae_lens_contrastive.losses.objectives import register_objective as register_objective
from sae_lens_contrastive.losses.output_kl import OutputKL as OutputKL
from sae_lens_contrastive.losses.output_space import OutputSpace as OutputSpace
from sae_lens_contrastive.losses.output_space import Sequences as Sequences
from sae_lens_contrastive.losses.output_space import Sides as Sides
from sae_lens_contrastive.losses.sentence_margin import SentenceMargin as SentenceMargin
from sae_lens_contrastive.losses.supervised_contrastive import SupervisedContrastive as SupervisedContrastive
