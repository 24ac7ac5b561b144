"""The plan of a sweep as text: its jobs, with the time and memory of their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import model_shape
from sae_lens_contrastive.report.table import in_columns
from sae_lens_contrastive.search.proposals import Proposals
from sae_lens_contrastive.sweep.jobs import job_digest
from sae_lens_contrastive.sweep.spec import Sweep, Trial
from sae_lens_contrastive.training import RunConfig
from sae_lens_contrastive.training.device_facts import device_facts
from sae_lens_contrastive.training.estimate import StreamEstimate, estimate
from sae_lens_contrastive.training.identity import activation_cache
from sae_lens_contrastive.training.plan import Plan, duration_text, size_text
from sae_lens_contrastive.unlearning.plan import plan_evaluation


def plan_sweep(sweep: Sweep) -> Plan:
    """Every job of a grid, or of the first generation of a search, and what all of them take.

    Loads no weights, writes nothing and needs no device. The time of the evaluations is not estimated. Raises
    `UserError` if a search needs Optuna and it is not installed, or for a layer that the model does not have.
    """
    trials, impossible = _trials(sweep)
    runs = [run for trial in trials for run in trial.runs]
    model = sweep.bases[0].model
    try:
        shapes, unknown = {model: model_shape(model)}, []
    except UserError as error:
        shapes, unknown = {}, [f"{error} Only the SAEs are estimated."]
    facts = {device: device_facts(device) for device in dict.fromkeys(run.device for run in runs)}
    streams = [estimate([run], shapes, facts).streams[0] for run in runs]
    lines = [("trial", "seed", "job", "training", "memory", "values")]
    for trial in trials:
        for run in trial.runs:
            stream = streams[len(lines) - 1]
            values = ", ".join(f"{key}={value}" for key, value in trial.params.items()) or run.variant
            job = job_digest(run, sweep.spec, sweep.inputs.digest)[:16]
            memory = size_text(stream.peak_bytes) + ("" if stream.fits else ", DOES NOT FIT")
            own = duration_text(stream.runs[0].seconds)
            lines.append((f"{trial.number:03d}", str(run.seed), job, own, memory, values))
    evaluation = plan_evaluation(sweep.spec, sweep.inputs).text
    total, seconds = _total(sweep, runs, streams)
    parts = [in_columns(lines), *impossible, total, *unknown, f"every evaluation:\n{evaluation}"]
    return Plan(
        "\n\n".join(parts),
        seconds=seconds,
        peak_bytes=max((stream.peak_bytes for stream in streams), default=None),
        fits=all(stream.fits for stream in streams),
    )


def _trials(sweep: Sweep) -> tuple[list[Trial], list[str]]:
    if sweep.search is None:
        return list(sweep.grid), []
    proposals = Proposals(sweep.space, sweep.search.population_size, sweep.search.seed)
    trials, impossible = [], []
    for number in range(min(sweep.search.population_size, sweep.search.n_trials)):
        try:
            trials.append(sweep.searched_trial(number, proposals.ask()))
        except UserError as error:
            impossible.append(f"trial {number:03d} is impossible: {error}")
    return trials, impossible


def _total(sweep: Sweep, runs: Sequence[RunConfig], streams: Sequence[StreamEstimate]) -> tuple[str, float | None]:
    """What all jobs take, as text and in seconds, were they done one after another."""
    caches = {_activations(run): stream for run, stream in zip(runs, streams, strict=True)}
    once = [stream.model_seconds for key, stream in caches.items() if key is not None]
    own = [stream.runs[0].seconds for stream in streams]
    each_time = [s.model_seconds for run, s in zip(runs, streams, strict=True) if _activations(run) is None]
    seconds = _sum([*once, *own, *each_time])
    takes = f"{sweep.resources.num_cpus:g} CPUs and {sweep.resources.num_gpus:g} GPUs"
    said = [
        f"{len(runs)} jobs of {takes}, up to {1 + sweep.retries} attempts each: {duration_text(seconds)} of training, "
        "one after another; evaluating comes on top"
    ]
    if once:
        said.append(
            f"activations are generated once for all jobs of a seed and a hook, {len(once)} in all: "
            f"{duration_text(_sum(once))} of it"
        )
    if each_time:
        said.append("training.cache_tokens is 0: every job runs the model itself; set it to share activations")
    if sweep.search is not None and sweep.search.n_trials > sweep.search.population_size:
        said.append(
            f"this is the first generation; {sweep.search.n_trials} trials in all, each generation when the one before "
            "it is done"
        )
    return "\n".join(said), seconds


def _activations(run: RunConfig) -> str | None:
    cache = activation_cache(run, Path())
    return None if cache is None else cache.fingerprint


def _sum(parts: Sequence[float | None]) -> float | None:
    return None if None in parts else sum(part for part in parts if part is not None)
