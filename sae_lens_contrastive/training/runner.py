"""SAELens' training runner with a forget and a retain corpus beside the general one."""

from __future__ import annotations

import copy
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import wandb
from datasets import load_dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner
from sae_lens import logger as host_logger
from sae_lens.config import HfDataset
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.training.prefetch import PrefetchingIterator
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.data.activations import (
    CachedActivations,
    DomainMix,
    collect_activations,
    domain_labels,
    domain_sizes,
)
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN
from sae_lens_contrastive.models import HookedBridge, check_device, check_hook, check_model_name, load_model
from sae_lens_contrastive.saes import ContrastiveObjectiveConfig
from sae_lens_contrastive.training.trainer import ContrastiveSAETrainer, check_domains_given

DOMAIN_NAMES = {GENERAL: "general", FORGET: "forget", RETAIN: "retain"}
BRIDGE_CLASS_NAME = "TransformerBridge"


@dataclass(frozen=True)
class DomainData:
    """The two labelled corpora of a run and their share of every batch."""

    forget: HfDataset
    """Texts of the domain to be forgotten, in a column `text` (or tokenised, as SAELens takes it)."""
    retain: HfDataset
    """Texts of what must be kept."""
    forget_share: float = 0.25
    """Share of the tokens of a batch that comes from the forget corpus."""
    retain_share: float = 0.25
    """Share of the tokens of a batch that comes from the retain corpus; the rest is the general corpus."""


@dataclass(frozen=True)
class ActivationCacheOptions:
    """Collect activations once and train from them, instead of running the model during training."""

    folder: Path
    """Where the activations of each domain are kept."""
    max_tokens: int
    """Tokens kept of each domain at most."""
    fingerprint: str
    """Names model, hook and corpora; activations with another fingerprint are collected anew."""


class ContrastiveTrainingRunner(LanguageModelSAETrainingRunner):
    """Trains an SAE of this package from a stock `LanguageModelSAERunnerConfig`.

    The model is loaded by name as a TransformerBridge (any TransformerLens name, a local folder, an embedded model),
    the activation stores are SAELens', one for each corpus. Without `domain_data` the run has the general corpus only,
    which suits terms that need no labels.

    Raises `UserError` before the model loads if a loss term needs labels and there is no `domain_data`, or if the
    dataset cannot be fetched, and before training if the model lacks the hook or `d_in` does not fit it.
    """

    def __init__(
        self,
        cfg: LanguageModelSAERunnerConfig[Any],
        domain_data: DomainData | None = None,
        override_dataset: HfDataset | None = None,
        override_model: Any = None,
        override_sae: TrainingSAE[Any] | None = None,
        activation_cache: ActivationCacheOptions | None = None,
    ) -> None:
        check_runner_config(cfg, has_domains=domain_data is not None)
        cfg = copy.copy(cfg)
        dataset = override_dataset if override_dataset is not None else _load_dataset(cfg)
        if override_model is None:
            kwargs = dict(cfg.model_from_pretrained_kwargs or {})
            kwargs.pop("center_writing_weights", None)
            override_model = load_model(cfg.model_name, device=cfg.llm_device or cfg.device, dtype=cfg.dtype, **kwargs)
        if isinstance(override_model, HookedBridge):
            # A bridge has the model's own weights: there is no processing for a later reader to repeat.
            cfg.model_class_name, cfg.model_from_pretrained_kwargs = BRIDGE_CLASS_NAME, {}
        check_hook(override_model, cfg.hook_name, cfg.sae.d_in)
        self.domain_data = domain_data
        self.activation_cache = activation_cache
        torch.manual_seed(cfg.seed)
        with _no_override_warnings():
            super().__init__(cfg, dataset, cast(Any, override_model), override_sae)

    @override
    def run(self) -> TrainingSAE[Any]:
        """Train, save the inference SAE and the runner configuration to `output_path`, and return the SAE."""
        self._set_sae_metadata()
        self._start_wandb()
        provider, domains = self.data_provider()
        try:
            self.trainer = ContrastiveSAETrainer(
                cfg=self.cfg.to_sae_trainer_config(),
                sae=self.sae,  # pyright: ignore[reportArgumentType]
                data_provider=provider,
                domains=domains,
                evaluator=self.evaluator,
                save_checkpoint_fn=self.save_checkpoint,
            )
            self._resume_if_asked()
            self._compile_sae_if_needed()
            sae = self.run_trainer_with_interruption_handling(self.trainer)
        finally:
            if isinstance(provider, PrefetchingIterator):
                provider.close()
        if self.cfg.output_path is not None:
            self.save_final_sae(sae, self.cfg.output_path, self.trainer.log_feature_sparsity)
        if self.cfg.logger.log_to_wandb:
            wandb.finish()
        return sae

    @override
    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        """Train; SIGINT and SIGTERM end in `KeyboardInterrupt`, after a checkpoint if there is a `checkpoint_path`.

        The host's own handlers write into a folder that does not exist yet, and stay in place after training.
        """
        previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return trainer.fit()
        except KeyboardInterrupt:
            if self.cfg.checkpoint_path is not None:
                trainer.save_checkpoint(checkpoint_name=str(trainer.n_training_samples))
            raise
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def data_provider(self) -> tuple[Iterator[Tensor], Tensor | None]:
        """The activation stream of the run and the domain of every token of its batches."""
        if self.domain_data is None:
            sizes = {GENERAL: self.cfg.train_batch_size_tokens}
            stream: Iterator[Tensor] = self._stream(GENERAL, self.cfg.train_batch_size_tokens)
            domains = None
        else:
            data = self.domain_data
            sizes = domain_sizes(self.cfg.train_batch_size_tokens, data.forget_share, data.retain_share)
            stream = DomainMix({domain: self._stream(domain, size) for domain, size in sizes.items()})
            domains = domain_labels(sizes)
        if self.cfg.prefetch_llm_batches:
            return PrefetchingIterator(stream, prefetch=int(self.cfg.prefetch_llm_batches)), domains
        return stream, domains

    def _stream(self, domain: int, batch_size: int) -> Iterator[Tensor]:
        store = self._store(domain, batch_size)
        if self.activation_cache is None:
            return iter(store)
        name = DOMAIN_NAMES[domain]
        path = collect_activations(
            store,
            self.activation_cache.folder / f"{name}.safetensors",
            self.activation_cache.max_tokens,
            name,
            f"{self.activation_cache.fingerprint}/{name}",
        )
        return CachedActivations(path, batch_size, seed=self.cfg.seed * 3 + domain, device=self.cfg.device)

    def _store(self, domain: int, batch_size: int) -> ActivationsStore:
        if domain == GENERAL and self.domain_data is None:
            return self.activations_store
        datasets = {GENERAL: self.activations_store.dataset}
        if self.domain_data is not None:
            datasets |= {FORGET: self.domain_data.forget, RETAIN: self.domain_data.retain}
        # The store reads these fields only; a full copy of the configuration would derive its paths a second time.
        cfg = copy.copy(self.cfg)
        cfg.train_batch_size_tokens = batch_size
        return ActivationsStore.from_config(self.model, cfg, override_dataset=datasets[domain])

    def _start_wandb(self) -> None:
        logger = self.cfg.logger
        if logger.log_to_wandb:
            wandb.init(
                project=logger.wandb_project,
                entity=logger.wandb_entity,
                config=self.cfg.to_dict(),
                name=logger.run_name,
                id=logger.wandb_id,
            )

    def _resume_if_asked(self) -> None:
        if (checkpoint := self.cfg.resume_from_checkpoint) is not None:
            self.trainer.load_trainer_state(checkpoint)
            self.sae.load_weights_from_checkpoint(checkpoint)
            self.activations_store.load_from_checkpoint(checkpoint)


def _load_dataset(cfg: LanguageModelSAERunnerConfig[Any]) -> HfDataset:
    """The general corpus by its name, fetched before the model so that a wrong name costs nothing."""
    if not cfg.dataset_path:
        raise ConfigError("dataset_path is empty. Name a dataset of the hub, or pass override_dataset.")
    try:
        return load_dataset(cfg.dataset_path, split="train", streaming=cfg.streaming)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The dataset {cfg.dataset_path!r} could not be loaded: {reason}. Check the name and the network, or pass "
            "texts of your own as override_dataset."
        ) from error


@contextmanager
def _no_override_warnings() -> Iterator[None]:
    """Hide the host's warning that overrides are not in the configuration: a run here names its model and texts."""

    def wanted(record: logging.LogRecord) -> bool:
        return "will override the one specified" not in record.getMessage()

    host_logger.addFilter(wanted)
    try:
        yield
    finally:
        host_logger.removeFilter(wanted)


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


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
    if cfg.training_tokens < cfg.train_batch_size_tokens:
        raise ConfigError(
            f"training_tokens is {cfg.training_tokens}, less than one batch of {cfg.train_batch_size_tokens} tokens. "
            "Raise it or lower train_batch_size_tokens."
        )
