"""SAELens' trainer with domain labels, correlation groups and a loss history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import TrainStepOutput
from sae_lens.training.sae_trainer import Evaluator, SAETrainer, SaveCheckpointFn
from sae_lens.training.types import DataProvider
from safetensors.torch import load_file, save
from torch import Tensor
from typing_extensions import override

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import CorrelationTracker
from sae_lens_contrastive.features.grouping import FeatureGroups, group_features
from sae_lens_contrastive.files import read_json, write_bytes_atomic, write_json
from sae_lens_contrastive.saes import BatchContext, ContrastiveObjective, ContrastiveObjectiveConfig

HISTORY_FILE = "history.json"
GROUPS_FILE = "grouping.safetensors"


class ContrastiveSAETrainer(SAETrainer[Any, Any]):
    """Trains one SAE as SAELens does, and gives its loss terms what they need.

    `domains` labels the tokens of every batch (see `DomainMix`). Correlation groups are formed after every
    `grouping.every_n_steps` steps, from activations sampled in between. Everything else is the host's `fit()`.

    Raises `ConfigError` if a loss term needs domains and none are given.
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
    ) -> None:
        super().__init__(cfg, sae, data_provider, evaluator, save_checkpoint_fn)
        check_domains_given(sae.cfg, domains is not None)
        self.domains = None if domains is None else domains.to(cfg.device)
        self.history: list[dict[str, float]] = []
        self.history_every_n_steps = history_every_n_steps
        self.feature_groups: FeatureGroups | None = None
        self.grouping = sae.cfg.grouping_options()
        self.correlation_tracker: CorrelationTracker | None = None
        if self.grouping is not None:
            per_step = max(1, self.grouping.window_tokens // self.grouping.every_n_steps)
            self.correlation_tracker = CorrelationTracker(sae.cfg.d_sae, tokens_per_update=per_step)

    @override
    def step(self, batch: Tensor) -> TrainStepOutput:
        """One training step of the host, with labels and groups in reach of the loss terms."""
        groups = self.feature_groups.groups if self.feature_groups else ()
        self.sae.batch_context = BatchContext(self.domains, groups)
        output = super().step(batch)
        self._update_groups(output.feature_acts)
        if self.feature_groups is not None:
            output.metrics["n_groups"] = len(self.feature_groups.groups)
            output.metrics["correlation_threshold"] = self.feature_groups.threshold
        if self.n_training_steps % self.history_every_n_steps == 0:
            self._record(output)
        return output

    @override
    def _update_pbar(self, step_output: TrainStepOutput, pbar: Any, update_interval: int = 10) -> None:
        """The host's progress bar, often enough to show the time left of a short run."""
        super()._update_pbar(step_output, pbar, update_interval)

    def summary(self, n_last: int = 10) -> dict[str, float]:
        """Means of the last `n_last` history records: losses, explained variance, l0 and grouping figures."""
        last = self.history[-n_last:]
        names = [name for name in (last[-1] if last else {}) if name not in ("step", "n_training_samples")]
        means = {name: sum(record.get(name, 0.0) for record in last) / len(last) for name in names}
        return {
            **means,
            "dead_features": int(self.dead_neurons.sum()),
            "n_training_steps": self.n_training_steps,
        }

    @override
    def save_trainer_state(self, checkpoint_path: Path) -> None:
        """The host's state, and beside it the history and the grouping state, without pickle."""
        super().save_trainer_state(checkpoint_path)
        write_json(checkpoint_path / HISTORY_FILE, self.history)
        if self.correlation_tracker is not None:
            state = dict(self.correlation_tracker.state_dict())
            if self.feature_groups is not None:
                state |= {f"group_{i}": group for i, group in enumerate(self.feature_groups.groups)}
                state["threshold"] = torch.tensor(self.feature_groups.threshold, dtype=torch.float64)
            tensors = {name: tensor.contiguous().cpu() for name, tensor in state.items()}
            write_bytes_atomic(checkpoint_path / GROUPS_FILE, save(tensors))

    @override
    def load_trainer_state(self, checkpoint_path: Path | str) -> None:
        """Continue from a checkpoint, grouping included."""
        super().load_trainer_state(checkpoint_path)
        checkpoint_path = Path(checkpoint_path)
        self.history = read_json(checkpoint_path / HISTORY_FILE)
        if self.correlation_tracker is not None:
            state = load_file(checkpoint_path / GROUPS_FILE, device=self.cfg.device)
            self.correlation_tracker.load_state_dict(state)
            if "threshold" in state:
                n_groups = sum(name.startswith("group_") for name in state)
                groups = tuple(state[f"group_{i}"] for i in range(n_groups))
                self.feature_groups = FeatureGroups(groups, float(state["threshold"]))

    def _update_groups(self, feature_acts: Tensor) -> None:
        if self.correlation_tracker is None or self.grouping is None:
            return
        self.correlation_tracker.update(feature_acts)
        if (self.n_training_steps + 1) % self.grouping.every_n_steps == 0:
            correlation = self.correlation_tracker.compute()
            if correlation is not None:
                self.feature_groups = group_features(correlation, self.grouping.percentile, self.grouping.min_size)
            self.correlation_tracker.reset()

    @torch.no_grad()
    def _record(self, output: TrainStepOutput) -> None:
        log = self.build_train_step_log_dict(output, self.n_training_samples)
        record: dict[str, float] = {"step": self.n_training_steps, "n_training_samples": self.n_training_samples}
        for name, value in log.items():
            section, _, short = name.partition("/")
            if section == "losses" or short in (
                "explained_variance",
                "l0",
                "n_groups",
                "correlation_threshold",
            ):
                record[short] = float(value)
        self.history.append(record)


def check_domains_given(cfg: ContrastiveObjectiveConfig, given: bool) -> None:
    """Raise `ConfigError` if a loss term needs domain labels and there are none."""
    if given:
        return
    if needing := cfg.terms_that_need_domains():
        raise ConfigError(
            f"loss_terms.{needing[0]} needs to know which tokens are forget and which retain, but no forget and retain "
            "corpus is given. Give both, or drop the term."
        )
