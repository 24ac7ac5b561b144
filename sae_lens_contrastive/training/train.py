"""Train the runs of a target, side by side where they read the same stream; finished ones are kept."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sae_lens.config import HfDataset

from sae_lens_contrastive.data.sources import corpus_dataset
from sae_lens_contrastive.distributed import by_first, is_first
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_bytes_atomic, write_json
from sae_lens_contrastive.models import check_hook, load_model
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.training.identity import activation_cache, input_key, run_key, stream_key
from sae_lens_contrastive.training.run_config import RunConfig
from sae_lens_contrastive.training.runner import ContrastiveTrainingRunner
from sae_lens_contrastive.training.side_by_side import train_side_by_side
from sae_lens_contrastive.training.streams import ActivationCacheOptions, DomainData, SentenceSources
from sae_lens_contrastive.training.trainer import HISTORY_FILE, TRACKERS_FILE, ContrastiveSAETrainer
from sae_lens_contrastive.training.wandb_runs import log_results, wandb_runs
from sae_lens_contrastive.versions import package_versions

SUMMARY_FILE = "summary.json"
CONFIG_FILE = "config.yaml"
CHECKPOINTS_FOLDER = "checkpoints"
_MADE_FROM = "made_from"


def train_runs(
    runs: Sequence[RunConfig],
    out: Path | str,
    model: Any = None,
    activations: Path | None = None,
    *,
    renew: bool = False,
) -> list[Path]:
    """Train every run into its own folder under `out` and return these folders.

    Runs that read the same stream (model, hook, corpora, batch size, tokens, seed) are trained side by side: the model
    runs once for all of them, and each ends as if trained alone. A folder holds the resolved `config.yaml`, the SAE in
    a stock SAELens format (`sae/`), the loss `history.json`, `trackers.json` and `summary.json`, which is written last:
    a run that has it is finished and not trained again. A run that was killed goes on from its last checkpoint.
    `activations` is where collected activations are kept, if not under `out`. With `renew` a finished run is trained
    again if what it read or the packages have changed since; without it other packages are let be.

    In an initialised process group the ranks train every run together (see `ContrastiveTrainingRunner`), into a folder
    that all of them see.

    Raises `UserError` if a folder holds another run, or one of other texts without `renew`, and for everything
    `RunConfig.check` finds.
    """
    out = Path(out)
    for run in runs:
        run.check()
    folders = {run.variant: out / run.variant for run in runs}
    unfinished = by_first(lambda: _claimed_and_unfinished(runs, folders, renew=renew))
    together: dict[str, list[RunConfig]] = {}
    for run in runs:
        if run.variant in unfinished:
            together.setdefault(stream_key(run), []).append(run)
    loaded: tuple[str, str, str] | None = None
    # Corpora may come from a hub: all are opened before any model is loaded.
    texts = {key: _texts(group[0]) for key, group in together.items()}
    for key, group in together.items():
        wanted = (group[0].model, group[0].dtype, group[0].device)
        if model is None or loaded not in (None, wanted):
            model = load_model(group[0].model, dtype=group[0].dtype, device=group[0].device)
        loaded = wanted
        cache = activation_cache(group[0], activations or out / "activations")
        _train_together(group, folders, texts[key], out / CHECKPOINTS_FOLDER, cache, model)
    by_first(lambda: _remove_spent_checkpoints(out))
    return list(folders.values())


def load_summary(folder: Path | str) -> dict[str, Any]:
    """Summary of a finished run; `UserError` if the run is not finished."""
    path = Path(folder) / SUMMARY_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no finished training run. Start it again with the same command to finish it.")
    return read_json(path)


def layer_of(hook_name: str) -> int | None:
    """Layer in the name of a hook; None for one outside the blocks."""
    match = re.match(r"blocks\.(\d+)\.", hook_name)
    return int(match[1]) if match else None


def _claimed_and_unfinished(runs: Sequence[RunConfig], folders: dict[str, Path], *, renew: bool) -> list[str]:
    """Claim the folder of every run; the variants that are still to be trained."""
    for run in runs:
        claim_folder(folders[run.variant], "train", run.model_dump(mode="json"))
    return [run.variant for run in runs if not _is_finished(run, folders[run.variant], renew=renew)]


def _is_finished(run: RunConfig, folder: Path, *, renew: bool) -> bool:
    """Whether a folder holds what a run comes to; with `renew`, what changed makes it unfinished."""
    if not (folder / SUMMARY_FILE).is_file():
        return False
    now, then = _made_from(run), load_summary(folder).get(_MADE_FROM)
    if renew:
        if then != now:
            (folder / SUMMARY_FILE).unlink()
        return then == now
    if isinstance(then, dict) and then.get("input") != now["input"]:
        raise UserError(
            f"{folder} holds a run that was trained on other texts, or with another model or SAE in the folders that "
            "it names. Give another folder with --out, or delete this one."
        )
    return True


def _made_from(run: RunConfig) -> dict[str, Any]:
    return {"input": input_key(run), "versions": package_versions()}


@dataclass(frozen=True)
class _Texts:
    """The opened corpora of a run."""

    general: HfDataset
    """Text of everything."""
    domain_data: DomainData | None
    """Labelled text, if the run has any."""


def _train_together(
    runs: Sequence[RunConfig],
    folders: dict[str, Path],
    texts: _Texts,
    checkpoints: Path,
    cache: ActivationCacheOptions | None,
    model: Any,
) -> None:
    start = time.perf_counter()
    # Before anything is read: what changes during the run is not what it was made from.
    keys = {run.variant: run_key(run) for run in runs}
    made_from = {run.variant: _made_from(run) for run in runs}
    own_checkpoints = checkpoints / hashlib.sha256("".join(sorted(keys.values())).encode()).hexdigest()[:16]
    for run in runs:
        check_hook(model, run.hook_name, run.sae.get("d_in"))
        if is_first():
            config = yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False)
            write_bytes_atomic(folders[run.variant] / CONFIG_FILE, config.encode())
    configs = {run.variant: run.runner_config(folders[run.variant]) for run in runs}
    with wandb_runs(configs, folders, group=checkpoints.parent.name):
        runners = {
            run.variant: ContrastiveTrainingRunner(
                configs[run.variant],
                domain_data=texts.domain_data,
                override_dataset=texts.general,
                override_model=model,
                activation_cache=cache,
                warm_start=run.warm_start,
            )
            for run in runs
        }
        trainers = train_side_by_side(runners, own_checkpoints, keys)
        shared = time.perf_counter() - start - sum(trainer.seconds_in_steps for trainer in trainers.values())

        def save() -> None:
            for run in runs:
                runners[run.variant].save_final_sae_whole(trainers[run.variant])
                _write_results(
                    run,
                    folders[run.variant],
                    trainers[run.variant],
                    seconds_shared=max(0.0, shared),
                    made_from=made_from[run.variant],
                )

        by_first(save)
    # Not before: until everything is saved, the last checkpoint is what a killed run goes on from.
    by_first(lambda: shutil.rmtree(own_checkpoints, ignore_errors=True))


def _remove_spent_checkpoints(out: Path) -> None:
    """Remove checkpoints of runs that are all finished: a process killed at its very end leaves them behind."""
    for together in (out / CHECKPOINTS_FOLDER).glob("*"):
        variants = {path.name for path in together.glob("*/*") if path.is_dir()}
        if variants and all((out / variant / SUMMARY_FILE).is_file() for variant in variants):
            shutil.rmtree(together, ignore_errors=True)


def _write_results(
    run: RunConfig,
    folder: Path,
    trainer: ContrastiveSAETrainer,
    *,
    seconds_shared: float,
    made_from: dict[str, Any],
) -> None:
    write_json(folder / HISTORY_FILE, trainer.history)
    write_json(folder / TRACKERS_FILE, trainer.records())
    summary = {
        "variant": run.variant,
        "seed": run.seed,
        "target": run.target,
        "hook_name": run.hook_name,
        "layer": layer_of(run.hook_name),
        "architecture": run.sae["architecture"],
        "d_sae": trainer.sae.cfg.d_sae,
        **trainer.summary(),
        # What the run would have taken alone: its own steps, and all that was shared.
        "train_seconds": trainer.seconds_in_steps + seconds_shared,
    }
    log_results(trainer.cfg.logger, summary, trainer.records())
    write_json(folder / SUMMARY_FILE, {**summary, _MADE_FROM: made_from})


def _texts(run: RunConfig) -> _Texts:
    corpora = run.corpora
    general = corpus_dataset(corpora.general, (), run.seed)
    if not corpora.forget:
        return _Texts(general, None)
    domain_data = DomainData(
        forget=corpus_dataset(corpora.forget, run.left_out_entities(), run.seed),
        retain=corpus_dataset(corpora.retain, (), run.seed),
        forget_share=corpora.forget_share,
        retain_share=corpora.retain_share,
        output_space_sequences=corpora.output_space_sequences,
        sentences=_sentence_sources(run),
    )
    return _Texts(general, domain_data)


def _sentence_sources(run: RunConfig) -> SentenceSources | None:
    corpora = run.corpora
    if corpora.output_space_sentences == 0:
        return None
    kept = dict.fromkeys((*corpora.retain, *corpora.general))
    return SentenceSources(
        forget=tuple(corpus_dataset([source], run.left_out_entities(), run.seed) for source in corpora.forget),
        retain=tuple(corpus_dataset([source], (), run.seed) for source in kept),
        n_sentences=corpora.output_space_sentences,
    )
