"""What can be known to fail before a model is loaded, and what a trainer must be given."""

from __future__ import annotations

import sys
from typing import Any

from sae_lens import LanguageModelSAERunnerConfig

from sae_lens_contrastive.distributed import n_ranks
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.models import check_device, check_model_name
from sae_lens_contrastive.models.residual import n_blocks_below
from sae_lens_contrastive.saes import ContrastiveObjectiveConfig


def check_runner_config(cfg: LanguageModelSAERunnerConfig[Any], has_domains: bool) -> None:
    """Raise `UserError` for what can be known to fail before a model is loaded."""
    if not isinstance(cfg.sae, ContrastiveObjectiveConfig):
        raise ConfigError(
            f"cfg.sae is a {type(cfg.sae).__name__}. Give a configuration of this package, for example "
            "ContrastiveTopKTrainingSAEConfig; without loss_terms it trains exactly as SAELens' own."
        )
    check_domains_given(cfg.sae, has_domains)
    check_model_name(cfg.model_name)
    check_device(cfg.device)
    _check_hook_fits(cfg, cfg.sae)
    _check_execution(cfg, cfg.sae)
    if cfg.use_cached_activations and has_domains:
        raise ConfigError(
            "use_cached_activations: true reads the activations of one corpus, and would give them for those of the "
            "forget and the retain corpus too. Set it to false; activation_cache of the runner keeps all three."
        )
    _check_steps(cfg)


def check_domains_given(cfg: ContrastiveObjectiveConfig, given: bool) -> None:
    """Raise `ConfigError` if a loss term or a tracker needs domain labels and there are none."""
    if not given and (needing := cfg.needs_domains()):
        raise ConfigError(
            f"{needing[0]} needs to know which tokens are forget and which retain, but no forget and retain corpus is "
            "given. Give both, or drop it."
        )


def check_output_space_given(cfg: ContrastiveObjectiveConfig, given: bool) -> None:
    """Raise `ConfigError` if a loss term reads text at the hook or runs the model above it and there is none."""
    if not given and (needing := cfg.terms_that_need_output_space()):
        raise ConfigError(
            f"loss_terms.{needing[0]} reads text at the hook or runs the model above it. Train with "
            "ContrastiveTrainingRunner and a forget and a retain corpus, or pass output_space to the trainer."
        )


def _check_hook_fits(cfg: LanguageModelSAERunnerConfig[Any], sae: ContrastiveObjectiveConfig) -> None:
    if sae.terms_that_need_output_space():
        # How many layers there are is only known with the model.
        n_blocks_below(cfg.hook_name, sys.maxsize)
    if sae.reshape_activations == "hook_z" and not cfg.hook_name.endswith("_z"):
        raise ConfigError(
            f"sae.reshape_activations is 'hook_z', but hook_name is {cfg.hook_name!r}. Set it to none, or train on a "
            "hook whose name ends in _z, such as blocks.L.attn.hook_z."
        )


def _check_execution(cfg: LanguageModelSAERunnerConfig[Any], sae: ContrastiveObjectiveConfig) -> None:
    """What runs where, and beside what."""
    if cfg.compile_sae and sae.loss_terms:
        raise ConfigError(
            f"compile_sae: true does not work with loss_terms ({', '.join(sae.loss_terms)}): torch.compile takes none "
            "of their sparse gradients. Set compile_sae: false."
        )
    if (needing := sae.terms_that_need_output_space()) and cfg.llm_device != cfg.device:
        raise ConfigError(
            f"loss_terms.{needing[0]} needs the model and the SAE on one device, but llm_device is "
            f"{cfg.llm_device!r} and device is {cfg.device!r}. Set llm_device: {cfg.device}."
        )
    if cfg.prefetch_llm_batches and (running := sae.terms_that_run_model()):
        raise ConfigError(
            f"loss_terms.{running[0]} runs the model in the training step, while prefetch_llm_batches runs it in the "
            "background. Set prefetch_llm_batches: false."
        )
    if cfg.prefetch_llm_batches and n_ranks() > 1:
        raise ConfigError(
            f"prefetch_llm_batches runs the model in the background, where {n_ranks()} ranks would not know what the "
            "others do. Set prefetch_llm_batches: false; the batches are the same."
        )


def _check_steps(cfg: LanguageModelSAERunnerConfig[Any]) -> None:
    if cfg.training_tokens < cfg.train_batch_size_tokens:
        raise ConfigError(
            f"training_tokens is {cfg.training_tokens}, less than one batch of {cfg.train_batch_size_tokens} tokens. "
            "Raise it or lower train_batch_size_tokens."
        )
    n_steps = cfg.training_tokens // cfg.train_batch_size_tokens
    if cfg.lr_scheduler_name != "constant" and cfg.lr_warm_up_steps + cfg.lr_decay_steps >= n_steps:
        raise ConfigError(
            f"lr_warm_up_steps {cfg.lr_warm_up_steps} and lr_decay_steps {cfg.lr_decay_steps} leave nothing of the "
            f"{n_steps} steps to lr_scheduler_name: {cfg.lr_scheduler_name}. Lower them, or use constant."
        )
