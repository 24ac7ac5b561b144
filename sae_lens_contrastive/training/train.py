"""Train the runs of a target one after another; finished ones are kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from sae_lens_contrastive.data.corpora import to_dataset
from sae_lens_contrastive.data.sources import corpus_file, load_corpus_sources
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_bytes_atomic, write_json
from sae_lens_contrastive.models import check_hook, load_model
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.training.run_config import RunConfig
from sae_lens_contrastive.training.runner import ActivationCacheOptions, ContrastiveTrainingRunner, DomainData
from sae_lens_contrastive.training.trainer import HISTORY_FILE

SUMMARY_FILE = "summary.json"
CONFIG_FILE = "config.yaml"


def train_runs(runs: Sequence[RunConfig], out: Path | str, model: Any = None) -> list[Path]:
    """Train every run into its own folder under `out` and return these folders.

    A folder holds the resolved `config.yaml`, the SAE in a stock SAELens format (`sae/`), the loss `history.json` and
    `summary.json`, which is written last: a run that has it is finished and not trained again. Activations that a
    target caches are collected once and shared by its variants. The model is loaded once for consecutive runs on it.

    Raises `UserError` if a folder holds another run, and for everything `RunConfig.check` finds.
    """
    out = Path(out)
    for run in runs:
        run.check()
    folders = [claim_folder(out / run.variant, "train", run.model_dump(mode="json")) for run in runs]
    loaded: tuple[str, str, str] | None = None
    for run, folder in zip(runs, folders, strict=True):
        if (folder / SUMMARY_FILE).is_file():
            continue
        wanted = (run.model, run.dtype, run.device)
        if model is None or loaded not in (None, wanted):
            model = load_model(run.model, dtype=run.dtype, device=run.device)
        loaded = wanted
        _train(run, folder, out / "activations", model)
    return folders


def load_summary(folder: Path | str) -> dict[str, Any]:
    """Summary of a finished run; `UserError` if the run is not finished."""
    path = Path(folder) / SUMMARY_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no finished training run. Start it again with the same command to finish it.")
    return read_json(path)


def _train(run: RunConfig, folder: Path, cache_folder: Path, model: Any) -> None:
    start = time.perf_counter()
    check_hook(model, run.hook_name, run.sae.get("d_in"))
    write_bytes_atomic(folder / CONFIG_FILE, yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False).encode())
    runner = ContrastiveTrainingRunner(
        run.runner_config(folder),
        domain_data=_domain_data(run),
        override_dataset=_dataset(run, run.corpora.general),
        override_model=model,
        activation_cache=_cache(run, cache_folder),
    )
    runner.run()
    write_json(folder / HISTORY_FILE, runner.trainer.history)
    summary = {
        "variant": run.variant,
        "seed": run.seed,
        "hook_name": run.hook_name,
        "d_sae": runner.sae.cfg.d_sae,
        **runner.trainer.summary(),
        "train_seconds": time.perf_counter() - start,
    }
    write_json(folder / SUMMARY_FILE, summary)


def _dataset(run: RunConfig, sources: Sequence[str], left_out: Sequence[str] = ()) -> Dataset:
    return to_dataset(load_corpus_sources(sources, left_out)).shuffle(seed=run.seed)


def _domain_data(run: RunConfig) -> DomainData | None:
    corpora = run.corpora
    if not corpora.forget:
        return None
    return DomainData(
        forget=_dataset(run, corpora.forget, run.left_out_entities()),
        retain=_dataset(run, corpora.retain),
        forget_share=corpora.forget_share,
        retain_share=corpora.retain_share,
    )


def _cache(run: RunConfig, folder: Path) -> ActivationCacheOptions | None:
    if run.training.cache_tokens == 0:
        return None
    digest = hashlib.sha256()
    sources = (*run.corpora.general, "|", *run.corpora.forget, "|", *run.corpora.retain)
    for source in sources:
        digest.update(source.encode() if source == "|" else corpus_file(source).read_bytes())
    parts = (
        run.model,
        run.dtype,
        run.hook_name,
        run.training.context_size,
        run.training.cache_tokens,
        run.seed,
    )
    digest.update(repr((*parts, run.left_out_entities())).encode())
    fingerprint = digest.hexdigest()
    return ActivationCacheOptions(folder / fingerprint[:16], run.training.cache_tokens, fingerprint)
