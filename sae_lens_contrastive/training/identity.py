"""What a run depends on, as hashes: its stream of activations, all that it reads, and the run itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sae_lens_contrastive.data.sources import corpus_digest
from sae_lens_contrastive.models.digest import folder_digest, model_content
from sae_lens_contrastive.training.run_config import RunConfig
from sae_lens_contrastive.training.streams import ActivationCacheOptions
from sae_lens_contrastive.versions import package_versions

STREAM_OPTIONS = {
    "training_tokens",
    "train_batch_size_tokens",
    "context_size",
    "store_batch_size_prompts",
    "n_batches_in_buffer",
    "cache_tokens",
    "n_batches_for_norm_estimate",
    "n_checkpoints",
    "prefetch_llm_batches",
    "autocast_lm",
    "log_to_wandb",
    "wandb_project",
}


def stream_key(run: RunConfig) -> str:
    """Hash of everything that shapes the activation stream of a run; runs that share it can be trained together."""
    training = run.training
    parts = {
        "model": [run.model, run.dtype, run.device, run.hook_name, run.seed],
        "corpora": [
            _corpora_digest(run),
            run.corpora.forget_share,
            run.corpora.retain_share,
            run.corpora.output_space_sequences,
            run.corpora.output_space_sentences,
        ],
        "scaled": run.sae_config().normalize_activations != "none",
        "training": training.model_dump(include=STREAM_OPTIONS),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def input_key(run: RunConfig) -> str:
    """Hash of everything that a run reads: its stream, and what folders of a model and of an SAE to start from hold."""
    start = [] if run.warm_start is None or run.warm_start.path is None else [folder_digest(run.warm_start.path)]
    if not (folders := [*model_content(run.model), *start]):
        return stream_key(run)
    return hashlib.sha256(" ".join([stream_key(run), *folders]).encode()).hexdigest()[:16]


def run_key(run: RunConfig) -> str:
    """Hash of a run: its whole configuration, and everything that it reads."""
    parts = [run.model_dump(mode="json"), input_key(run)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def activation_cache(run: RunConfig, folder: Path) -> ActivationCacheOptions | None:
    """Where below `folder` a run keeps the activations that it trains on; None if it streams them from the model.

    Runs with the same fingerprint train on the same activations.
    """
    training = run.training
    if training.cache_tokens == 0:
        return None
    parts = {
        "model": [run.model, run.dtype, run.device, run.hook_name, run.seed, *model_content(run.model)],
        "corpora": _corpora_digest(run),
        # The size of a batch decides where a small corpus ends.
        "training": training.model_dump(
            include={"context_size", "cache_tokens", "store_batch_size_prompts", "autocast_lm"}
        ),
        "versions": package_versions(),
    }
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return ActivationCacheOptions(folder / fingerprint[:16], training.cache_tokens, fingerprint)


def _corpora_digest(run: RunConfig) -> str:
    digest = hashlib.sha256()
    for domain in (run.corpora.general, run.corpora.forget, run.corpora.retain):
        for source in domain:
            digest.update(corpus_digest(source).encode())
        digest.update(b"|")
    digest.update(repr(run.left_out_entities()).encode())
    return digest.hexdigest()
