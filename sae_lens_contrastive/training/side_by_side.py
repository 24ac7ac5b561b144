"""Several variants trained over one activation stream: one forward pass of the model for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainStepOutput
from sae_lens.training.multi_sae_trainer import MultiSAETrainer
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.data.streams import HookStream, ResumableStream
from sae_lens_contrastive.distributed import by_first, on_any_rank
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.training.checkpoints import RUNS_FILE, new_checkpoint, newest_whole, remove_newer
from sae_lens_contrastive.training.interruption import stopped_by_signals
from sae_lens_contrastive.training.runner import ContrastiveTrainingRunner, load_stream, save_stream
from sae_lens_contrastive.training.trainer import ContrastiveSAETrainer
from sae_lens_contrastive.training.wandb_runs import histograms, record


class SideBySideTrainer(MultiSAETrainer):
    """SAELens' multi-SAE trainer over trainers of this package, each with the optimiser of its own variant.

    In an initialised process group the ranks train each SAE together; the first one writes and draws the bar.

    A checkpoint holds every trainer and the position of the stream, and says by their hashes in `runs` of which runs;
    it appears whole under `folder`, which keeps the newest two.
    """

    def __init__(
        self,
        trainers: Mapping[str, ContrastiveSAETrainer],
        hook_name: str,
        stream: ResumableStream[Tensor],
        folder: Path,
        runs: Mapping[str, str],
    ) -> None:
        first = next(iter(trainers.values())).cfg
        # With no SAEs the host makes no trainers of its own.
        super().__init__(replace(first, checkpoint_path=str(folder)), {}, {}, HookStream(stream, hook_name))
        self.saes = {name: trainer.sae for name, trainer in trainers.items()}
        self.hook_names = dict.fromkeys(trainers, hook_name)
        self.trainers: dict[str, Any] = dict(trainers)
        self.stream = stream
        self.folder = folder
        self.runs = dict(runs)
        self.stop_requested = False

    @override
    def save_checkpoint(self, checkpoint_name: str, wandb_aliases: list[str] | None = None) -> None:
        """Write a checkpoint of every trainer and the stream, which appears whole. The first rank writes it.

        Raises `UserError` if the ranks do not agree.
        """
        for trainer in self.trainers.values():
            trainer.check_ranks_agree()
        by_first(lambda: self._write_checkpoint(checkpoint_name, wandb_aliases))

    def _write_checkpoint(self, checkpoint_name: str, wandb_aliases: list[str] | None) -> None:
        with new_checkpoint(self.folder, checkpoint_name) as partial:
            for name, trainer in self.trainers.items():
                trainer.save_checkpoint(checkpoint_name=name, base_path=partial, wandb_aliases=wandb_aliases)
            save_stream(self.stream, partial)
            write_json(partial / RUNS_FILE, self.runs)

    def resume(self) -> bool:
        """Continue from the newest whole checkpoint of these runs, in `folder` or beside it; say whether there was one.

        Beside it are the checkpoints of runs that were trained together with others.
        """
        checkpoint = by_first(self._newest_checkpoint)
        if checkpoint is None:
            return False
        self.load_checkpoint(checkpoint)
        load_stream(self.stream, checkpoint)
        self.checkpoint_thresholds = [n for n in self.checkpoint_thresholds if n > self.n_training_samples]
        return True

    def _newest_checkpoint(self) -> Path | None:
        found = newest_whole(self.folder.parent.glob("*"), self.runs)
        # Damaged ones would be taken for the newest that are to be kept.
        remove_newer(self.folder, found)
        return found

    @override
    def _log_train_step(self, step_outputs: dict[str, TrainStepOutput]) -> None:
        """Log to each variant's own W&B run, as SAELens does for one SAE."""
        if self._is_logging_step():
            for name, trainer in self.trainers.items():
                values = trainer.build_train_step_log_dict(step_outputs[name], self.n_training_samples)
                record(trainer.cfg.logger, values, self.n_training_steps)

    @override
    def _maybe_log_sparsity(self, final: bool = False) -> None:
        for trainer in self.trainers.values():
            values = trainer.full_sparsity_window_log() if final else trainer.maybe_reset_sparsity()
            record(trainer.cfg.logger, values, self.n_training_steps)

    @override
    @torch.no_grad()
    def _run_and_log_evals(self) -> None:
        logger = self.cfg.logger
        if (self.n_training_steps + 1) % (logger.wandb_log_frequency * logger.eval_every_n_wandb_logs):
            return
        for trainer in self.trainers.values():
            trainer.sae.eval()
            found = {}
            if trainer.evaluator is not None:
                # It draws from the global generator; what is trained must not depend on whether it is logged.
                with torch.random.fork_rng():
                    found = trainer.evaluator(trainer.sae, self.stream, trainer.activation_scaler)
            record(trainer.cfg.logger, found | histograms(trainer.sae), self.n_training_steps)
            trainer.sae.train()

    @override
    def _update_pbar(self, step_outputs: dict[str, TrainStepOutput], pbar: Any, update_interval: int = 10) -> None:
        """Advance the bar by whole batches, from where a resumed run stands; stop here if a signal asked for it."""
        pbar.update(self.n_training_samples - pbar.n)
        if self.n_training_steps % update_interval == 0:
            losses = " | ".join(
                f"{name}: {trainer.sae.losses['overall_loss'].item():.4g}" for name, trainer in self.trainers.items()
            )
            pbar.set_description(f"{self.n_training_steps}| {losses}")
        if on_any_rank(self.stop_requested):
            self.save_checkpoint(str(self.n_training_samples))
            pbar.close()
            raise KeyboardInterrupt


def train_side_by_side(
    runners: Mapping[str, ContrastiveTrainingRunner], checkpoint_folder: Path, runs: Mapping[str, str]
) -> dict[str, ContrastiveSAETrainer]:
    """Train the SAEs of several runners over the stream of the first; return their trainers.

    The runners must agree in everything that shapes the stream. Each ends as if it had been trained alone: the stream
    does not depend on who reads it, and nothing of a trainer is shared. A run that was killed goes on from its last
    checkpoint, or from the one before if that is damaged; they stay until the caller has saved what came of them.
    `runs` has the hash of each run, by which its checkpoints are known from those of another configuration.
    Raises `KeyboardInterrupt`, after a checkpoint, on SIGINT and SIGTERM.
    """
    first = next(iter(runners.values()))
    stream, domains = first.streams.activations()
    spaces = [runner for runner in runners.values() if runner.needs_output_space]
    output_space = spaces[0].streams.output_space() if spaces else None
    trainers = {
        name: runner.make_trainer(iter(()), domains, output_space if runner.needs_output_space else None)
        for name, runner in runners.items()
    }
    together = SideBySideTrainer(trainers, first.cfg.hook_name, stream, checkpoint_folder, runs)
    together.resume()
    try:
        with stopped_by_signals(together):
            together.fit()
    finally:
        stream.close()
    return trainers
