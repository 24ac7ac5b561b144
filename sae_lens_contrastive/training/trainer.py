"""SAELens' trainer with domain labels, trackers, surgeries and a history."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepOutput
from sae_lens.training.sae_trainer import Evaluator, SAETrainer, SaveCheckpointFn
from sae_lens.training.types import DataProvider
from safetensors.torch import load_file, save
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive import distributed
from sae_lens_contrastive.features.surgery import keep_at_zero
from sae_lens_contrastive.files import read_json, write_bytes_atomic, write_json
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.saes import BatchContext, ContrastiveObjective
from sae_lens_contrastive.training.checkpoints import new_checkpoint
from sae_lens_contrastive.training.guard import StepGuard, gradients_of
from sae_lens_contrastive.training.parts import CurriculumPart, FeatureState, StepView, WhiteningPart, build_parts
from sae_lens_contrastive.training.parts.base import (
    load_state_of_parts,
    shown_in_history,
    state_of_parts,
    with_measurement,
)
from sae_lens_contrastive.training.requirements import check_domains_given, check_output_space_given

HISTORY_FILE = "history.json"
TRACKERS_FILE = "trackers.json"
PARTS_FILE = "parts.safetensors"


class ContrastiveSAETrainer(SAETrainer[Any, Any]):
    """Trains one SAE as SAELens does, and runs the trackers and surgeries of its configuration between the steps.

    `domains` labels the tokens of every batch (see `DomainMix`); `output_space` is there for terms that run the model
    above the hook. `seed` is for parts that draw. `warm_started`: the weights are in the units of the activations as
    the model makes them, and are brought to the scale of the training before the first step. A step
    whose numbers are not finite is not taken, and told in `failure_folder`. Everything else is the host's `fit()`.

    In an initialised process group the ranks train one SAE together. Every rank is given the same whole batches and
    steps on its share of each; the gradients are summed before the host clips, and what parts keep is of all ranks. The
    first rank's weights are the beginning, and it alone writes.

    Raises `ConfigError` if a loss term needs domains or the output space and they are not given.
    """

    def __init__(
        self,
        cfg: SAETrainerConfig,
        sae: ContrastiveObjective,
        data_provider: DataProvider,
        domains: Int[Tensor, " batch"] | None = None,
        evaluator: Evaluator[Any] | None = None,
        save_checkpoint_fn: SaveCheckpointFn | None = None,
        history_every_n_steps: int = 5,
        output_space: OutputSpace | None = None,
        seed: int = 0,
        warm_started: bool = False,
        failure_folder: Path | None = None,
    ) -> None:
        # The host's constructor reads properties that the features have a say in.
        place = torch.arange(sae.cfg.d_sae, device=cfg.device)
        n_reserved = max((weighted.term.n_reserved for weighted in sae.loss_terms.values()), default=0)
        self.features = FeatureState(pruned=place < 0, reserved=place < n_reserved)
        if n_reserved:
            sae.cfg.metadata.n_reserved_features = n_reserved
        super().__init__(cfg, sae, data_provider, evaluator, save_checkpoint_fn)
        distributed.take_from_first(sae.state_dict().values())
        # Before the parts' own hooks, which see the gradient of all ranks.
        distributed.add_up_gradients(sae.parameters())
        check_domains_given(sae.cfg, domains is not None)
        check_output_space_given(sae.cfg, output_space is not None)
        self.domains = None if domains is None else domains.to(cfg.device)
        self.output_space = output_space
        self.seed = seed
        self.warm_started = warm_started
        self.guard = StepGuard(failure_folder if distributed.is_first() else None)
        self.optimizer.register_step_pre_hook(lambda *_: self._check_step())
        self.history: list[dict[str, float]] = []
        self.history_every_n_steps = history_every_n_steps
        self.seconds_in_steps = 0.0
        self.stop_requested = False
        self.stopped_between_steps = False
        self.parts = build_parts(sae.cfg, cfg.total_training_steps)
        self._schedule_stages()
        if sae.cfg.pruning is not None:
            keep_at_zero(sae, lambda: self.features.pruned)
        for part in self.parts:
            if isinstance(part, WhiteningPart):
                part.watch(sae, n_reserved)

    @property
    @override
    def dead_neurons(self) -> Bool[Tensor, " d_sae"]:
        """Features that have not fired for `dead_feature_window` steps; a pruned feature is not dead but masked."""
        return super().dead_neurons & ~self.features.pruned

    @override
    def step(self, batch: Tensor) -> TrainStepOutput:
        """One training step of the host, then the trackers and surgeries that are due."""
        start = time.perf_counter()
        self._bring_warm_start_to_scale()
        kept, domains = self._part_of(batch)
        share = distributed.BatchShare.of(len(kept))
        own = kept if share is None else kept[share.own]
        step, output_space = self.n_training_steps, self._scaled_output_space()
        self.sae.batch_context = BatchContext(
            domains=domains,
            share=share,
            groups=self.features.groups.groups if self.features.groups else (),
            step=step,
            output_space=output_space,
            keep_gradients=any(part.wants_gradients(step) for part in self.parts),
            n_shielded=int(self.features.reserved.sum()) if self.sae.cfg.whitening is not None else 0,
        )
        self.guard.begin(step, kept, domains)
        fired_before, self.act_freq_scores = self.act_freq_scores, torch.zeros_like(self.act_freq_scores)
        output = super().step(own)
        self._count_firing(fired_before)
        self.n_training_samples += len(batch) - len(own)
        self.n_frac_active_samples -= len(batch) - len(kept)
        view = StepView(
            step=step,
            sae=self.sae,
            optimizer=self.optimizer,
            output=output,
            domains=domains,
            passes_since_fired=self.n_forward_passes_since_fired,
            dead=self.dead_neurons,
            features=self.features,
            output_space=output_space,
            seed=self.seed,
            share=share,
        )
        for part in self.parts:
            part.after_step(view)
        self._record(output)
        self.seconds_in_steps += time.perf_counter() - start
        return output

    @override
    def _update_pbar(self, step_output: TrainStepOutput, pbar: Any, update_interval: int = 10) -> None:
        """The host's progress bar, often enough for a short run; stops here if a signal asked for it."""
        super()._update_pbar(step_output, pbar, update_interval)
        if distributed.on_any_rank(self.stop_requested):
            self.stopped_between_steps = True
            raise KeyboardInterrupt

    def summary(self, n_last: int = 10) -> dict[str, float]:
        """Means of the last `n_last` history records: losses, explained variance, l0 and the figures of the parts."""
        last = self.history[-n_last:]
        names = [name for name in (last[-1] if last else {}) if name not in ("step", "n_training_samples")]
        found = {name: [record[name] for record in last if name in record] for name in names}
        means = {name: sum(values) / len(values) for name, values in found.items()}
        return {
            **means,
            "dead_features": int(self.dead_neurons.sum()),
            "pruned_features": int(self.features.pruned.sum()),
            "n_training_steps": self.n_training_steps,
        }

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What each part recorded for figures."""
        return {part.name: part.records for part in self.parts if part.records}

    @override
    def save_checkpoint(
        self, checkpoint_name: str, base_path: Path | str | None = None, wandb_aliases: list[str] | None = None
    ) -> None:
        """The host's checkpoint; one of a run alone appears whole, with checksums. The first rank writes it.

        Raises `UserError` if the ranks do not agree. With a `base_path` it is for the first rank alone to call.
        """
        if base_path is not None:
            super().save_checkpoint(checkpoint_name, base_path, wandb_aliases)
            return
        self.check_ranks_agree()
        distributed.by_first(lambda: self._save_alone(checkpoint_name, wandb_aliases))

    def check_ranks_agree(self) -> None:
        """Raise `UserError` unless weights, counts and the state of the parts are the same on every rank."""
        distributed.check_agreement(
            self.sae.state_dict()
            | {"passes_since_fired": self.n_forward_passes_since_fired, "act_freq_scores": self.act_freq_scores}
            | state_of_parts(self.features, self.parts)
        )

    def _save_alone(self, checkpoint_name: str, wandb_aliases: list[str] | None) -> None:
        if self.cfg.checkpoint_path is None:
            super().save_checkpoint(checkpoint_name, None, wandb_aliases)
            return
        with new_checkpoint(Path(self.cfg.checkpoint_path), checkpoint_name, n_kept=None) as partial:
            super().save_checkpoint(partial.name, partial.parent, wandb_aliases)

    @override
    def save_trainer_state(self, checkpoint_path: Path) -> None:
        """The host's state, and beside it the history and the state of the parts, without pickle."""
        super().save_trainer_state(checkpoint_path)
        write_json(checkpoint_path / HISTORY_FILE, self.history)
        write_json(checkpoint_path / TRACKERS_FILE, self.records())
        state = state_of_parts(self.features, self.parts)
        state["seconds_in_steps"] = torch.tensor(self.seconds_in_steps, dtype=torch.float64)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        write_bytes_atomic(checkpoint_path / PARTS_FILE, save(tensors))

    @override
    def load_trainer_state(self, checkpoint_path: Path | str) -> None:
        """Continue from a checkpoint, parts included."""
        super().load_trainer_state(checkpoint_path)
        # The host counts a step only after it has saved the checkpoint of that step.
        self.n_training_steps = self.n_training_samples // self.cfg.train_batch_size_samples
        self.checkpoint_thresholds = [n for n in self.checkpoint_thresholds if n > self.n_training_samples]
        self.warm_started = False
        checkpoint_path = Path(checkpoint_path)
        self.history = read_json(checkpoint_path / HISTORY_FILE)
        records = read_json(checkpoint_path / TRACKERS_FILE)
        # Through the CPU: safetensors takes "cuda" for the first GPU, whichever is the current one of this rank.
        state = {name: tensor.to(self.cfg.device) for name, tensor in load_file(checkpoint_path / PARTS_FILE).items()}
        self.seconds_in_steps = float(state["seconds_in_steps"])
        load_state_of_parts(state, self.features, self.parts)
        for part in self.parts:
            part.records = records.get(part.name, [])

    @override
    @torch.no_grad()
    def build_train_step_log_dict(self, output: TrainStepOutput, n_training_samples: int) -> dict[str, Any]:
        """What the host logs of a step, of the batch of all ranks."""
        if (share := self.sae.batch_context.share) is None:
            return super().build_train_step_log_dict(output, n_training_samples)
        rows = {name: distributed.rows_of_all(getattr(output, name), share.sizes) for name in ("sae_in", "sae_out")}
        values = super().build_train_step_log_dict(
            replace(output, **rows, loss=self.sae.losses["overall_loss"]), n_training_samples
        )
        own_l0 = torch.tensor(values["metrics/l0"] * share.weight, dtype=torch.float64)
        return values | {"metrics/l0": distributed.summed(own_l0).item()}

    def _count_firing(self, before: Tensor) -> None:
        """Add the step's counts of tokens on which each feature fired, on all ranks, to those before."""
        fired = distributed.summed(self.act_freq_scores)
        self.act_freq_scores = before + fired
        self.n_forward_passes_since_fired[fired > 0] = 0

    def _check_step(self) -> None:
        gradients = gradients_of(self.sae)
        for part in self.parts:
            gradients |= {f"{name} ({part.name})": gradient for name, gradient in part.gradients.items()}
        self.guard.check(self.sae.losses, gradients)

    def _schedule_stages(self) -> None:
        if (part := self._curriculum()) is None:
            return
        for name, weighted in self.sae.loss_terms.items():
            self.coefficient_schedulers[name] = part.scheduler(name, weighted)

    def _part_of(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens of the batch that the curriculum lets take part, and their domains."""
        part = self._curriculum()
        if part is None or self.domains is None:
            return batch, self.domains
        return part.part_of(batch, self.domains, self.n_training_steps)

    def _curriculum(self) -> CurriculumPart | None:
        return next((part for part in self.parts if isinstance(part, CurriculumPart)), None)

    def _scaled_output_space(self) -> OutputSpace | None:
        scale = self.activation_scaler.scaling_factor or 1.0
        return self.output_space and replace(self.output_space, activation_scale=scale)

    def _bring_warm_start_to_scale(self) -> None:
        if self.warm_started:
            scale = self.activation_scaler.scaling_factor or 1.0
            self.sae.fold_activation_norm_scaling_factor(1 / scale)
            self.warm_started = False

    @torch.no_grad()
    def _record(self, output: TrainStepOutput) -> None:
        due = self.n_training_steps % self.history_every_n_steps == 0
        if not due and not self._is_logging_step():
            return
        metrics = {name: value for part in self.parts for name, value in part.metrics(self.features).items()}
        output.metrics.update(metrics)
        if not due:
            return
        record = {"step": self.n_training_steps, "n_training_samples": self.n_training_samples}
        record |= shown_in_history(self.build_train_step_log_dict(output, self.n_training_samples), metrics)
        self.history = with_measurement(self.history, record, lambda each: each["step"] // self.history_every_n_steps)
