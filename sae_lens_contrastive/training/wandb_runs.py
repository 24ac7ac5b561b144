"""Weights & Biases: one run for each variant, under SAELens' own key names, so that its panels go on working."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import wandb
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig
from typing_extensions import override

from sae_lens_contrastive.distributed import is_first
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.wandb_session import is_online, open_wandb_run, record_table

WANDB_FILE = "wandb.json"
"""Beside a variant's other files: the W&B run that a continued training goes on with."""


@dataclass
class VariantLogging(LoggingConfig):
    """SAELens' logging, into a run of its own instead of the one that the process has."""

    run: ClassVar[Any] = None
    """The open W&B run, set on the instance: what is saved of a configuration leaves it out."""

    @override
    def log(
        self,
        trainer: Any,
        weights_path: Path | str,
        cfg_path: Path | str,
        sparsity_path: Path | str | None,
        wandb_aliases: list[str] | None = None,
    ) -> None:
        """Log the SAE as the artefacts that SAELens logs: the model, and its log feature sparsity."""
        name = trainer.sae.get_name().replace("/", "__")
        model = [weights_path, cfg_path] if self.log_weights_to_wandb else [cfg_path]
        sparsity = [] if sparsity_path is None else [sparsity_path]
        self._log_artifact(name, "model", model, wandb_aliases)
        self._log_artifact(f"{name}_log_feature_sparsity", "log_feature_sparsity", sparsity, None)

    def _log_artifact(self, name: str, kind: str, paths: Sequence[Path | str], aliases: list[str] | None) -> None:
        artifact = wandb.Artifact(name, type=kind)
        for path in paths:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact, aliases=aliases)


def record(logger: LoggingConfig, values: Mapping[str, Any], step: int) -> None:
    """Log values of a step to a variant's run, if it has one."""
    if values and isinstance(logger, VariantLogging):
        logger.run.log(dict(values), step=step)


def histograms(sae: Any) -> dict[str, wandb.Histogram]:
    """The histograms that SAELens logs of an SAE."""
    return {name: wandb.Histogram(values) for name, values in sae.log_histograms().items()}


@contextmanager
def wandb_runs(
    configs: Mapping[str, LanguageModelSAERunnerConfig[Any]], folders: Mapping[str, Path], group: str
) -> Iterator[None]:
    """Open a W&B run for every configuration that logs, and end it with this context, as failed after an exception.

    A run that was begun for the same folder is continued, unless W&B is offline, where a new one begins.
    Raises `UserError` if W&B refuses.
    """
    opened: list[Any] = []
    try:
        for name, config in configs.items():
            if config.logger.log_to_wandb:
                logger = VariantLogging(**asdict(config.logger))
                logger.run = _open(config, folders[name] / WANDB_FILE, group)  # pyright: ignore[reportAttributeAccessIssue]
                opened.append(logger.run)
                config.logger = logger
        yield
    except BaseException:
        _finish(opened, exit_code=1)
        raise
    _finish(opened, exit_code=0)


def log_results(logger: LoggingConfig, summary: Mapping[str, Any], records: Mapping[str, list[dict[str, Any]]]) -> None:
    """Log a finished training's summary and a table for each tracker to a variant's run, if it has one."""
    if not isinstance(logger, VariantLogging):
        return
    logger.run.summary.update({f"summary/{name}": value for name, value in summary.items()})
    logger.run.log({f"trackers/{name}": record_table(rows) for name, rows in records.items() if rows})


def _open(config: LanguageModelSAERunnerConfig[Any], file: Path, group: str) -> Any:
    # Other ranks of a training take the same steps, into a run that keeps nothing.
    logger, online = config.logger, is_online() and is_first()
    known = read_json(file) if online and file.is_file() else {}
    if not isinstance(known, dict):
        raise UserError(f"{file} is not what a training wrote. Delete it to begin a new W&B run.")
    run = open_wandb_run(
        logger.wandb_project,
        entity=logger.wandb_entity,
        name=logger.run_name,
        id=known.get("id", logger.wandb_id),
        group=group,
        config=config.to_dict(),
        resume="allow" if online else None,
        mode=None if is_first() else "disabled",
    )
    if is_first():
        write_json(file, {"id": run.id, "project": logger.wandb_project})
    return run


def _finish(runs: Sequence[Any], *, exit_code: int) -> None:
    for run in runs:
        run.finish(exit_code=exit_code)
