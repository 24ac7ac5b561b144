"""The plan of training runs as text: what will be trained, in what memory, for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sae_lens_contrastive.data.activations import domain_sizes
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN, build_loss_terms
from sae_lens_contrastive.models import ModelShape, model_shape
from sae_lens_contrastive.training.device_facts import GIGA, device_facts
from sae_lens_contrastive.training.estimate import (
    Estimate,
    RunEstimate,
    StreamEstimate,
    estimate,
    n_steps,
    sections_of,
)
from sae_lens_contrastive.training.run_config import RunConfig

_TRACKERS = ("grouping", "importance", "stability")
_SURGERIES = ("pruning", "reinitialisation", "coverage")


@dataclass(frozen=True)
class Plan:
    """What a command would do."""

    text: str
    """For readers."""
    seconds: float | None = None
    """Estimated time of training; None if it is not known or nothing is trained."""
    peak_bytes: float | None = None
    """Most memory that training needs on its device at any time; None if nothing is trained."""
    fits: bool | None = None
    """Whether that is there; None if nothing is trained."""


def plan_runs(runs: Sequence[RunConfig]) -> Plan:
    """Estimate the runs and describe them; loads no weights, writes nothing and needs no device.

    Of a model whose shape cannot be known here, only the SAE is estimated, and the plan says so. Raises `UserError` for
    a malformed device or a layer that the model does not have.
    """
    shapes: dict[str, ModelShape] = {}
    unknown: list[str] = []
    for model in dict.fromkeys(run.model for run in runs):
        try:
            shapes[model] = model_shape(model)
        except UserError as error:
            unknown.append(f"{error} Only the SAEs are estimated.")
    facts = {device: device_facts(device) for device in dict.fromkeys(run.device for run in runs)}
    found = estimate(runs, shapes, facts)
    return Plan(
        text="\n".join((describe(found), *unknown)),
        seconds=found.seconds,
        peak_bytes=max(stream.peak_bytes for stream in found.streams),
        fits=all(stream.fits for stream in found.streams),
    )


def one_after_another(plans: Sequence[Plan], text: str) -> Plan:
    """Plans of trainings that follow each other, described by a text of their own."""
    known = [plan.seconds for plan in plans if plan.seconds is not None]
    return Plan(
        text,
        seconds=sum(known) if len(known) == len(plans) else None,
        peak_bytes=max(plan.peak_bytes or 0.0 for plan in plans),
        fits=all(plan.fits for plan in plans),
    )


def describe(plan: Estimate) -> str:
    """An estimate as text: every run, then every stream with its memory and time."""
    parts = [_run(run) for stream in plan.streams for run in stream.runs]
    parts += [_stream(stream) for stream in plan.streams]
    if len(plan.streams) > 1:
        parts.append(f"all {len(plan.streams)} streams, one after another: {duration_text(plan.seconds)}")
    return "\n\n".join(parts)


def _run(estimated: RunEstimate) -> str:
    run = estimated.run
    cfg, training, corpora = run.sae_config(), run.training, run.corpora
    sections = sections_of(run)
    batch = f"{training.train_batch_size_tokens:,}"
    if corpora.forget:
        sizes = domain_sizes(training.train_batch_size_tokens, corpora.forget_share, corpora.retain_share)
        batch += f" (general {sizes[GENERAL]:,}, forget {sizes[FORGET]:,}, retain {sizes[RETAIN]:,})"
    terms = [f"{name} {term.coefficient:g}" for name, term in build_loss_terms(cfg.loss_terms).items()]
    lines = {
        "sae": f"{run.sae['architecture']}, d_in {cfg.d_in:,}, d_sae {cfg.d_sae:,}, {run.hook_name} of {run.model}",
        "training": f"{training.training_tokens:,} tokens, {n_steps(run):,} steps of {batch}, lr {training.lr:g}",
        "loss terms": ", ".join(terms) or "none",
        "trackers": _scheduled(sections, _TRACKERS),
        "surgeries": _scheduled(sections, _SURGERIES),
        "held": _sum(estimated.stays),
        "at its steps": _sum(estimated.at_step),
        "time": f"{duration_text(estimated.seconds)} in its own steps",
    }
    if estimated.on_host:
        lines["host memory"] = _sum(estimated.on_host)
    if "curriculum" in sections:
        lines["curriculum"] = ", ".join(sections["curriculum"].stages)
    return _block(run.variant, lines)


def _stream(stream: StreamEstimate) -> str:
    first = stream.runs[0].run
    training = first.training
    names = ", ".join(run.run.variant for run in stream.runs)
    title = f"{names}: side by side, the model runs once" if len(stream.runs) > 1 else f"{names}: with the model"
    shape, device = stream.shape, first.device
    corpora = {"general": first.corpora.general, "forget": first.corpora.forget, "retain": first.corpora.retain}
    lines = {
        "text": "; ".join(f"{name} {', '.join(sources)}" for name, sources in corpora.items() if sources),
        "model": f"{first.model}, {_parameters(shape)}, {first.dtype}, on {device}",
        "reads": f"{stream.model_tokens:,} tokens in contexts of {training.context_size:,}, "
        f"{training.store_batch_size_prompts} at a time",
    }
    lines |= {"held": _sum(stream.stays), "at a forward": _sum(stream.at_forward)}
    if stream.on_host:
        lines["host memory"] = _sum(stream.on_host)
    checkpoint = stream.checkpoint_bytes + sum(run.checkpoint_bytes for run in stream.runs)
    if training.n_checkpoints:
        lines["disk"] = f"{size_text(checkpoint)} for the newest checkpoint"
    lines["memory"] = (
        f"{size_text(stream.peak_bytes)} at most, of {size_text(stream.facts.memory_bytes)} on {_fit(stream)}"
    )
    own = ", ".join(f"{run.run.variant} {duration_text(run.seconds)}" for run in stream.runs)
    lines["time"] = f"{duration_text(stream.seconds)}: model {duration_text(stream.model_seconds)}, {own}"
    lines["speed"] = stream.facts.source
    return _block(title, lines)


def _fit(stream: StreamEstimate) -> str:
    if stream.fits:
        return f"{stream.facts.name}: fits"
    parts = {
        f"{run.run.variant}: {name}": size for run in stream.runs for name, size in (run.stays | run.at_step).items()
    }
    largest = sorted((stream.stays | stream.at_forward | parts).items(), key=lambda item: -item[1])[:3]
    fixes = "Lower train_batch_size_tokens, n_batches_in_buffer or store_batch_size_prompts"
    fixes += ", or train fewer variants at a time." if len(stream.runs) > 1 else "."
    return f"{stream.facts.name}: DOES NOT FIT. Largest: {_items(dict(largest))}. {fixes}"


def _scheduled(sections: Mapping[str, Any], names: Sequence[str]) -> str:
    parts = [f"{name} every {sections[name].every_n_steps} steps" for name in names if name in sections]
    return ", ".join(parts) or "none"


def _parameters(shape: ModelShape | None) -> str:
    return "shape unknown" if shape is None else f"{shape.n_parameters:,} parameters in {shape.n_layers} layers"


def _items(items: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {size_text(size)}" for name, size in items.items())


def _sum(items: Mapping[str, float]) -> str:
    return f"{size_text(sum(items.values()))}: {_items(items)}"


def _block(title: str, lines: Mapping[str, str]) -> str:
    width = max(len(name) for name in lines) + 2
    return "\n".join((title, *(f"  {name:<{width}}{text}" for name, text in lines.items())))


def size_text(n_bytes: float) -> str:
    """Bytes in MB or GB."""
    return f"{n_bytes / GIGA:.1f} GB" if n_bytes >= GIGA else f"{n_bytes / 1e6:.1f} MB"


def duration_text(seconds: float | None) -> str:
    """Seconds in the unit that suits them."""
    if seconds is None:
        return "unknown"
    for limit, unit, length in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"
