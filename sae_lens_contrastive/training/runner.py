"""SAELens' training runner with a forget and a retain corpus beside the general one."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import wandb
from datasets import load_dataset
from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner
from sae_lens import logger as host_logger
from sae_lens.config import HfDataset
from sae_lens.saes.sae import TrainingSAE
from sae_lens.training.sae_trainer import SaveCheckpointFn
from safetensors.torch import load_file, save
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.data.batching import check_fits_context
from sae_lens_contrastive.data.streams import ResumableStream
from sae_lens_contrastive.distributed import by_first, is_first
from sae_lens_contrastive.errors import ConfigError, UserError, first_line
from sae_lens_contrastive.files import disk_that_may_be_full, replace_folder, write_bytes_atomic
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.models import HookedBridge, check_hook, load_model
from sae_lens_contrastive.saes import ContrastiveObjectiveConfig
from sae_lens_contrastive.saes.warm_start import WarmStart, warm_started_sae
from sae_lens_contrastive.training.checkpoints import damage
from sae_lens_contrastive.training.interruption import stopped_by_signals
from sae_lens_contrastive.training.requirements import check_runner_config
from sae_lens_contrastive.training.streams import ActivationCacheOptions, CorpusStreams, DomainData
from sae_lens_contrastive.training.trainer import ContrastiveSAETrainer
from sae_lens_contrastive.wandb_session import check_wandb

BRIDGE_CLASS_NAME = "TransformerBridge"
STREAM_FILE = "stream.safetensors"


class ContrastiveTrainingRunner(LanguageModelSAETrainingRunner):
    """Trains an SAE of this package from a stock `LanguageModelSAERunnerConfig`.

    The model is loaded by name as a TransformerBridge (any TransformerLens name, a local folder, an embedded model);
    one that is given is frozen. The activation stores are SAELens', one for each corpus. Without `domain_data` the run
    has the general corpus only, which suits terms that need no labels. `warm_start` begins from the weights of a
    trained SAE.

    In an initialised process group (gloo, and NCCL for tensors on a GPU) the ranks train the SAE together: each runs
    the model on its share of the text and steps on its share of every batch, of which `train_batch_size_tokens` is the
    total. The first rank alone writes, to folders that all of them see.

    Raises `UserError` before the model loads if a loss term needs labels and there is no `domain_data`, or if the
    dataset or the SAE to start from cannot be loaded, and before training if the model lacks the hook or `d_in` does
    not fit it.
    """

    def __init__(
        self,
        cfg: LanguageModelSAERunnerConfig[Any],
        domain_data: DomainData | None = None,
        override_dataset: HfDataset | None = None,
        override_model: Any = None,
        override_sae: TrainingSAE[Any] | None = None,
        activation_cache: ActivationCacheOptions | None = None,
        warm_start: WarmStart | None = None,
    ) -> None:
        check_runner_config(cfg, has_domains=domain_data is not None)
        if cfg.logger.log_to_wandb:
            check_wandb()
        cfg = copy.copy(cfg)
        torch.manual_seed(cfg.seed)
        if warm_start is not None:
            override_sae = warm_started_sae(cast(ContrastiveObjectiveConfig, cfg.sae), warm_start)
        dataset = override_dataset if override_dataset is not None else _load_dataset(cfg)
        if override_model is None:
            kwargs = dict(cfg.model_from_pretrained_kwargs or {})
            kwargs.pop("center_writing_weights", None)
            override_model = load_model(cfg.model_name, device=cfg.llm_device or cfg.device, dtype=cfg.dtype, **kwargs)
        # A given one may learn: terms that run the model would add up gradients of its weights, which nothing reads.
        override_model.requires_grad_(False)
        if isinstance(override_model, HookedBridge):
            # A bridge has the model's own weights: there is no processing for a later reader to repeat.
            cfg.model_class_name, cfg.model_from_pretrained_kwargs = BRIDGE_CLASS_NAME, {}
        check_hook(override_model, cfg.hook_name, cfg.sae.d_in)
        check_fits_context(cfg.context_size, override_model, "A sequence", "Lower training.context_size.")
        self.warm_start = warm_start
        torch.manual_seed(cfg.seed)
        with _no_override_warnings():
            super().__init__(cfg, dataset, cast(Any, override_model), override_sae)
        self.streams = CorpusStreams(self.model, self.cfg, dataset, domain_data, activation_cache)
        self._set_sae_metadata()

    @override
    def run(self) -> TrainingSAE[Any]:
        """Train, save the inference SAE and the runner configuration to `output_path`, and return the SAE.

        Raises `LostRankError` if ranks train together and one of them is gone.
        """
        self._start_wandb()
        self.stream, domains = self.streams.activations()
        try:
            output_space = self.streams.output_space() if self.needs_output_space else None
            self.trainer = self.make_trainer(self.stream, domains, output_space, self.save_checkpoint)
            self._resume_if_asked()
            self._compile_sae_if_needed()
            sae = self.run_trainer_with_interruption_handling(self.trainer)
        finally:
            self.stream.close()
        if self.cfg.output_path is not None:
            by_first(lambda: self.save_final_sae_whole(self.trainer))
        if self.cfg.logger.log_to_wandb:
            wandb.finish()
        return sae

    def save_final_sae_whole(self, trainer: ContrastiveSAETrainer) -> None:
        """Save the inference SAE as the host does, in a folder that appears at once at `output_path`.

        Raises `UserError` if there is no room.
        """
        assert self.cfg.output_path is not None
        final = Path(self.cfg.output_path)
        partial = final.with_name(f".{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with disk_that_may_be_full(final):
            self.save_final_sae(trainer.sae, str(partial), trainer.log_feature_sparsity)
            replace_folder(partial, final)

    def make_trainer(
        self,
        data_provider: Iterator[Tensor],
        domains: Tensor | None,
        output_space: OutputSpace | None,
        save_checkpoint_fn: SaveCheckpointFn | None = None,
    ) -> ContrastiveSAETrainer:
        """The trainer of this run on a given stream."""
        return ContrastiveSAETrainer(
            cfg=self.cfg.to_sae_trainer_config(),
            sae=self.sae,  # pyright: ignore[reportArgumentType]
            data_provider=data_provider,
            domains=domains,
            evaluator=self.evaluator,
            save_checkpoint_fn=save_checkpoint_fn,
            output_space=output_space,
            seed=self.cfg.seed,
            warm_started=self.warm_start is not None,
            failure_folder=None if self.cfg.output_path is None else Path(self.cfg.output_path).parent,
        )

    @property
    def needs_output_space(self) -> bool:
        """Whether a term reads text at the hook or runs the model above it."""
        return bool(cast(ContrastiveObjectiveConfig, self.cfg.sae).terms_that_need_output_space())

    @override
    def run_trainer_with_interruption_handling(self, trainer: Any) -> Any:
        """Train; SIGINT and SIGTERM end in `KeyboardInterrupt`, after a checkpoint if there is a `checkpoint_path`."""
        with stopped_by_signals(trainer):
            try:
                return trainer.fit()
            except KeyboardInterrupt:
                if self.cfg.checkpoint_path is not None and trainer.stopped_between_steps:
                    trainer.save_checkpoint(checkpoint_name=str(trainer.n_training_samples))
                raise

    @override
    def save_checkpoint(self, checkpoint_path: Path | None) -> None:
        """The host's files beside a checkpoint, and the position of the activation stream."""
        super().save_checkpoint(checkpoint_path)
        if checkpoint_path is not None:
            save_stream(self.stream, checkpoint_path)

    def _start_wandb(self) -> None:
        logger = self.cfg.logger
        if logger.log_to_wandb:
            wandb.init(
                project=logger.wandb_project,
                entity=logger.wandb_entity,
                config=self.cfg.to_dict(),
                name=logger.run_name,
                id=logger.wandb_id,
                mode=None if is_first() else "disabled",
            )

    def _resume_if_asked(self) -> None:
        if (checkpoint := self.cfg.resume_from_checkpoint) is None:
            return
        wrong = by_first(lambda: damage(Path(checkpoint)))
        try:
            if wrong is None:
                self.trainer.load_trainer_state(checkpoint)
                self.sae.load_weights_from_checkpoint(checkpoint)
                load_stream(self.stream, checkpoint)
        except Exception as error:  # whole, but of another run: every library has its own error for that
            wrong = f"it is not of this run ({first_line(error)})"
        if wrong is not None:
            raise UserError(
                f"The training cannot go on from {checkpoint}: {wrong}. Give another checkpoint as "
                "resume_from_checkpoint, or none to begin anew."
            )


def save_stream(stream: ResumableStream[Any], folder: Path | str) -> None:
    """Write the position of a stream into a checkpoint."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stream.state_dict().items()}
    write_bytes_atomic(Path(folder) / STREAM_FILE, save(tensors))


def load_stream(stream: ResumableStream[Any], folder: Path | str) -> None:
    """Continue a stream where a checkpoint left it."""
    stream.load_state_dict(load_file(Path(folder) / STREAM_FILE))


def _load_dataset(cfg: LanguageModelSAERunnerConfig[Any]) -> HfDataset:
    """The general corpus by its name, fetched before the model so that a wrong name costs nothing."""
    if not cfg.dataset_path:
        raise ConfigError("dataset_path is empty. Name a dataset of the hub, or pass override_dataset.")
    try:
        return load_dataset(cfg.dataset_path, split="train", streaming=cfg.streaming)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The dataset {cfg.dataset_path!r} could not be loaded: {first_line(error)} Check the name and the "
            "network, or pass texts of your own as override_dataset."
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
