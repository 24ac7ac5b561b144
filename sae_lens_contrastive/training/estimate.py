"""Time and memory of training runs, from their configuration alone.

An estimate counts matrix products and large tensors; reading and tokenising text, kernel launches and the allocator's
fragments are left out. It says whether a plan is a matter of minutes or days and whether it fits, not the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens_contrastive.data.sentences import MAX_TOKENS as SENTENCE_TOKENS
from sae_lens_contrastive.losses import LossTerm, build_loss_terms
from sae_lens_contrastive.losses.curriculum import CurriculumOptions
from sae_lens_contrastive.models import ModelShape, device_type
from sae_lens_contrastive.saes.config import SECTIONS
from sae_lens_contrastive.training.costs import (
    BYTES,
    FLOAT,
    KEPT_COPIES,
    STATE_COPIES,
    STEP_COPIES,
    STEP_STATE_COPIES,
    forward_bytes,
    model_flops_per_token,
    n_blocks_run,
    n_sae_parameters,
    output_space_bytes,
    output_space_flops,
    sae_flops_per_token,
)
from sae_lens_contrastive.training.device_facts import DeviceFacts
from sae_lens_contrastive.training.identity import stream_key
from sae_lens_contrastive.training.run_config import RunConfig

TERMS_SHARE, TRACKERS_SHARE = 0.15, 0.05
"""What loss terms (without those in output space), and trackers and surgeries, may add to a step's time at most."""


@dataclass(frozen=True)
class RunEstimate:
    """One run, apart from the stream it reads."""

    run: RunConfig
    """The run."""
    stays: dict[str, float]
    """Bytes held throughout, by what holds them."""
    at_step: dict[str, float]
    """Bytes held during this run's step; runs of a stream take turns."""
    on_host: dict[str, float]
    """Bytes held in the memory of the host."""
    checkpoint_bytes: float
    """Bytes of its part of a checkpoint."""
    seconds: float | None
    """Time in its steps; None where it depends on a model whose shape is unknown."""


@dataclass(frozen=True)
class StreamEstimate:
    """Runs side by side over one forward pass of the model."""

    runs: tuple[RunEstimate, ...]
    """The runs."""
    shape: ModelShape | None
    """The model; None if it could not be known, and then nothing of the model is counted."""
    facts: DeviceFacts
    """The device."""
    stays: dict[str, float]
    """Bytes held throughout for all runs together."""
    at_forward: dict[str, float]
    """Bytes held while the model runs and activations are mixed."""
    on_host: dict[str, float]
    """Bytes held in the memory of the host."""
    checkpoint_bytes: float
    """Bytes of the stream's part of a checkpoint."""
    model_tokens: int
    """Tokens that the model runs on."""
    model_seconds: float | None
    """Time of the model's forward passes."""

    @property
    def peak_bytes(self) -> float:
        """What stays, and the largest of what comes and goes; on a CPU the host's share as well."""
        turns = [sum(self.at_forward.values()), *(sum(run.at_step.values()) for run in self.runs)]
        stays = [self.stays, *(run.stays for run in self.runs)]
        if device_type(self.runs[0].run.device) == "cpu":
            stays += [self.on_host, *(run.on_host for run in self.runs)]
        return max(turns) + sum(sum(items.values()) for items in stays)

    @property
    def fits(self) -> bool:
        """Whether the peak is below the device's memory."""
        return self.peak_bytes <= self.facts.memory_bytes

    @property
    def seconds(self) -> float | None:
        """Time of the model and of all runs; None if it depends on a model whose shape is unknown."""
        parts = [self.model_seconds, *(run.seconds for run in self.runs)]
        return None if None in parts else sum(part for part in parts if part is not None)


@dataclass(frozen=True)
class Estimate:
    """All runs of a command."""

    streams: tuple[StreamEstimate, ...]
    """Streams, trained one after another."""

    @property
    def seconds(self) -> float | None:
        """Time of all streams."""
        parts = [stream.seconds for stream in self.streams]
        return None if None in parts else sum(part for part in parts if part is not None)


def estimate(runs: Sequence[RunConfig], shapes: Mapping[str, ModelShape], facts: Mapping[str, DeviceFacts]) -> Estimate:
    """Estimate runs as `train_runs` trains them: side by side where they read the same stream.

    `shapes` has the models whose shape is known, by name; `facts` the devices. Raises `ConfigError` for a hook in a
    layer that the model does not have.
    """
    together: dict[str, list[RunConfig]] = {}
    for run in runs:
        together.setdefault(stream_key(run), []).append(run)
    return Estimate(
        tuple(_stream(group, shapes.get(group[0].model), facts[group[0].device]) for group in together.values())
    )


def n_steps(run: RunConfig) -> int:
    """Training steps of a run, the last one whole."""
    return math.ceil(run.training.training_tokens / run.training.train_batch_size_tokens)


def n_domains(run: RunConfig) -> int:
    """Corpora that a run reads."""
    return 3 if run.corpora.forget else 1


def _stream(runs: Sequence[RunConfig], shape: ModelShape | None, facts: DeviceFacts) -> StreamEstimate:
    first = runs[0]
    training, d_in, bytes_per = first.training, first.sae_config().d_in, BYTES[first.dtype]
    forward_tokens = training.store_batch_size_prompts * training.context_size
    stays, on_host, buffer_bytes = {}, {}, 0.0
    at_forward = {"activations of a forward batch": float(forward_tokens * d_in * (FLOAT + bytes_per))}
    if training.cache_tokens:
        # Kept as collected; while one domain is collected, its parts, their whole and the file's bytes.
        n_copies = max(n_domains(first), 3)
        on_host["activations collected once"] = float(n_copies * training.cache_tokens * d_in * bytes_per)
    else:
        # A mix is what was left and one forward batch more; its shuffled copy replaces it while both are there.
        mix_bytes = float((training.n_batches_in_buffer * training.context_size + forward_tokens) * d_in * FLOAT)
        buffer_bytes = n_domains(first) * mix_bytes
        stays[f"activation buffers of {n_domains(first)} corpora"] = buffer_bytes
        at_forward["mixing one of them"] = 2 * mix_bytes
    if first.sae_config().normalize_activations != "none":
        batch_bytes = training.train_batch_size_tokens * d_in * FLOAT
        at_forward["batches for the norm estimate, at the start"] = float(
            training.n_batches_for_norm_estimate * batch_bytes
        )
    tokens = _model_tokens(first)
    seconds = None
    if shape is not None:
        n_blocks = n_blocks_run(first.hook_name, shape)
        stays["model weights"] = float(shape.n_parameters * bytes_per)
        at_forward["one block of the model"] = forward_bytes(
            shape, training.store_batch_size_prompts, training.context_size, n_blocks, bytes_per
        )
        number_format = "bfloat16" if training.autocast_lm else first.dtype
        seconds = tokens * model_flops_per_token(shape, n_blocks, training.context_size) / facts.flops[number_format]
    if any(run.sae_config().terms_that_need_output_space() for run in runs):
        corpora = first.corpora
        stays["sequences for output-space terms"] = float(
            2 * corpora.output_space_sequences * training.context_size * d_in * bytes_per
        )
        if corpora.output_space_sentences:
            stays["sentences for output-space terms"] = float(
                2 * corpora.output_space_sentences * SENTENCE_TOKENS * d_in * bytes_per
            )
    estimates = tuple(_run(run, shape, facts) for run in runs)
    return StreamEstimate(
        estimates, shape, facts, stays, at_forward, on_host, buffer_bytes, model_tokens=tokens, model_seconds=seconds
    )


def _model_tokens(run: RunConfig) -> int:
    """Tokens through the model: those collected, or those trained on, those for the norm and the first buffers."""
    training = run.training
    if training.cache_tokens:
        return n_domains(run) * training.cache_tokens
    batches = n_steps(run)
    if run.sae_config().normalize_activations != "none":
        batches += training.n_batches_for_norm_estimate
    first_buffers = n_domains(run) * training.n_batches_in_buffer * training.context_size
    return batches * training.train_batch_size_tokens + first_buffers


def _run(run: RunConfig, shape: ModelShape | None, facts: DeviceFacts) -> RunEstimate:
    cfg, training = run.sae_config(), run.training
    architecture = run.sae["architecture"]
    parameter_bytes = float(n_sae_parameters(cfg.d_in, cfg.d_sae, architecture) * FLOAT)
    batch_bytes = float(training.train_batch_size_tokens * cfg.d_sae * FLOAT)
    sections = sections_of(run)
    keeps_gradient = "importance" in sections and sections["importance"].gradient_weight > 0
    step_copies = STEP_COPIES[architecture] - KEPT_COPIES + bool(cfg.loss_terms) + keeps_gradient
    stays = {
        "weights and Adam": STATE_COPIES * parameter_bytes,
        "batch activations kept": KEPT_COPIES * batch_bytes,
    }
    at_step = {
        "gradients and update": STEP_STATE_COPIES * parameter_bytes,
        "batch activations": step_copies * batch_bytes,
    }
    on_host = {}
    if "stability" in sections:
        stays["decoder rows for stability"] = float(2 * cfg.d_in * cfg.d_sae)
    if "grouping" in sections:
        # An index and a value for every active entry; the stacked window beside its parts.
        on_host["correlation window, at most"] = float(
            2 * 8 * sections["grouping"].window_tokens * getattr(cfg, "k", cfg.d_sae)
        )
    rate = facts.flops["bfloat16" if training.autocast else "float32"]
    tokens = n_steps(run) * training.train_batch_size_tokens
    share = 1 + TERMS_SHARE * bool(cfg.loss_terms) + TRACKERS_SHARE * bool(sections)
    seconds: float | None = share * tokens * sae_flops_per_token(cfg.d_in, cfg.d_sae, architecture) / rate
    for name, (term, *_) in build_loss_terms(cfg.loss_terms).items():
        if not term.runs_model:
            continue
        if shape is None:
            seconds = None
            break
        n_above = shape.n_layers - n_blocks_run(run.hook_name, shape)
        per_forget = getattr(term, "retain_per_forget", 1)
        texts = _texts_run(run, term)
        at_step[name] = sum(output_space_bytes(shape, n_above, *text, BYTES[run.dtype], per_forget) for text in texts)
        curriculum = cfg.section(CurriculumOptions)
        n_steps_on = n_steps(run) * (1 if curriculum is None else curriculum.share_on(name))
        n_times = math.ceil(n_steps_on / getattr(term, "every_n_steps", 1))
        flops = sum(output_space_flops(shape, n_above, *text, per_forget) for text in texts)
        seconds += n_times * flops / facts.flops[run.dtype]
    return RunEstimate(run, stays, at_step, on_host, STATE_COPIES * parameter_bytes, seconds)


def _texts_run(run: RunConfig, term: LossTerm) -> list[tuple[int, int]]:
    """Forget texts that a term runs the model on at one evaluation, and the tokens of each."""
    texts = [
        (getattr(term, "n_sequences", 1), run.training.context_size),
        (getattr(term, "n_sentences", 0), SENTENCE_TOKENS),
    ]
    return [(n_texts, n_tokens) for n_texts, n_tokens in texts if n_texts]


def sections_of(run: RunConfig) -> dict[str, Any]:
    """Trackers, surgeries and the curriculum that a run switches on: checked options by section."""
    cfg = run.sae_config()
    sections = {name: cfg.section(options_class) for options_class, name in SECTIONS.items()}
    return {name: options for name, options in sections.items() if options is not None}
