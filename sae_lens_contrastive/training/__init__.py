"""Training: the trainer, the runner and runs from configuration files."""

from sae_lens_contrastive.training.identity import input_key as input_key
from sae_lens_contrastive.training.identity import stream_key as stream_key
from sae_lens_contrastive.training.run_config import RunConfig as RunConfig
from sae_lens_contrastive.training.run_config import resolve_run as resolve_run
from sae_lens_contrastive.training.run_config import resolve_runs as resolve_runs
from sae_lens_contrastive.training.runner import ContrastiveTrainingRunner as ContrastiveTrainingRunner
from sae_lens_contrastive.training.streams import DomainData as DomainData
from sae_lens_contrastive.training.train import load_summary as load_summary
from sae_lens_contrastive.training.train import train_runs as train_runs
from sae_lens_contrastive.training.trainer import ContrastiveSAETrainer as ContrastiveSAETrainer
