"""Sparse autoencoders for knowledge unlearning, on SAELens.

Importing the package registers its training architectures with SAELens; that is its only effect.
"""

from sae_lens_contrastive.errors import ConfigError as ConfigError
from sae_lens_contrastive.errors import UserError as UserError
from sae_lens_contrastive.losses import LossContext as LossContext
from sae_lens_contrastive.losses import LossTerm as LossTerm
from sae_lens_contrastive.losses import register_loss_term as register_loss_term
from sae_lens_contrastive.models import load_model as load_model
from sae_lens_contrastive.saes import ContrastiveStandardTrainingSAE as ContrastiveStandardTrainingSAE
from sae_lens_contrastive.saes import (
    ContrastiveStandardTrainingSAEConfig as ContrastiveStandardTrainingSAEConfig,
)
from sae_lens_contrastive.saes import ContrastiveTopKTrainingSAE as ContrastiveTopKTrainingSAE
from sae_lens_contrastive.saes import ContrastiveTopKTrainingSAEConfig as ContrastiveTopKTrainingSAEConfig
from sae_lens_contrastive.saes import register_architectures
from sae_lens_contrastive.training import ContrastiveSAETrainer as ContrastiveSAETrainer
from sae_lens_contrastive.training import ContrastiveTrainingRunner as ContrastiveTrainingRunner
from sae_lens_contrastive.training import DomainData as DomainData

register_architectures()
