"""KL unlearning in output space: what the model says with the chosen features clamped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import LossContext, LossTerm, register_loss_term
from sae_lens_contrastive.losses.objectives import ForgetPredictions, build_objective
from sae_lens_contrastive.losses.output_space import OutputSpace, Sequences, Sides
from sae_lens_contrastive.losses.soft_firing import encode_as_saved, soft_firing


@register_loss_term("output_kl")
@dataclass(frozen=True)
class OutputKL(LossTerm):
    """Make a clamp of the features G unlearn forget text and leave retain text as it is.

    L = forget_weight * objective(p_edited on forget text) + retain_weight * mean over positions of retain text of
    KL(p_model || p_edited), in nats, every `every_n_steps` steps; exactly 0, without running the model, on the others.
    Text is whole sequences, single sentences or both, all positions counting alike. p_edited is the model with
    residual + sum over i in G of (z_new_i - z_i) d_i on the editable tokens, where
    z_new_i = -multiplier where z_i > 0, and 0 elsewhere: the clamp of the evaluation. Its gradient reaches z and d_i,
    and, through the sigmoid gate of `soft_firing` in place of the step, whether a feature fires. Positions are those
    whose token and next token are editable; 0 if a side has none. Source: run 3 of the study.

    Memory: about 5 float32 tensors of positions x vocabulary for each side, 1.3 GB each for 4 sequences of 64 tokens
    at a vocabulary of 256k.
    """

    objective: str = "uniform"
    """Unlearning objective: uniform, reference, npo, entropy, bounded_loss or bounded_token_loss."""
    objective_options: dict[str, float] = field(default_factory=dict)
    """Options of the objective, such as {beta: 0.1} of npo."""
    features: Literal["reserved", "firing"] = "reserved"
    """Which features G are clamped: the first `n_features`, or the `n_features` that fire on most tokens of these
    forget sequences among those that fire on less than `retain_threshold` of the retain sequences' tokens."""
    n_features: int = 20
    """|G|, at most."""
    retain_threshold: float = 0.01
    """Share of retain tokens on which a feature of "firing" may not fire."""
    multiplier: float = 20.0
    """How far below zero the clamp goes, in units of feature activations."""
    forget_weight: float = 1.0
    """Weight of the objective on forget text."""
    retain_weight: float = 1.0
    """Weight of the divergence on retain text."""
    every_n_steps: int = 10
    """Steps between two evaluations of the term; the gradients in between are those of the other terms alone."""
    n_sequences: int = 4
    """Forget sequences run at a time, others every time."""
    n_sentences: int = 0
    """Forget sentences run at a time, others every time, which need `corpora.output_space_sentences`."""
    retain_per_forget: int = 1
    """Retain sequences and sentences for each one of forget text; only those on which a chosen feature fires run."""
    steepness: float = 1.0
    """Slope of the sigmoid gate, in 1 / units of pre-activations; 0 leaves it to other terms when a feature fires."""

    needs_domains = True
    needs_output_space = True
    over_ranks = True
    runs_model = True

    def __post_init__(self) -> None:
        build_objective(self.objective, self.objective_options)
        if self.features not in ("reserved", "firing"):
            raise ConfigError(f'output_kl.features is {self.features!r}; it must be "reserved" or "firing".')
        for name in ("n_features", "every_n_steps", "retain_per_forget"):
            if getattr(self, name) < 1:
                raise ConfigError(f"output_kl.{name} is {getattr(self, name)}; it must be 1 or more.")
        if min(self.n_sequences, self.n_sentences) < 0 or self.n_sequences + self.n_sentences == 0:
            raise ConfigError(
                f"output_kl.n_sequences is {self.n_sequences} and n_sentences {self.n_sentences}; both must be 0 or "
                "more and one of them 1 or more."
            )
        for name in ("retain_threshold", "multiplier"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"output_kl.{name} is {getattr(self, name)}; it must be above 0.")
        if min(self.forget_weight, self.retain_weight, self.steepness) < 0:
            raise ConfigError("output_kl.forget_weight, retain_weight and steepness must be 0 or more.")

    @property
    def needs_sentences(self) -> bool:
        """If it runs any."""
        return self.n_sentences > 0

    @property
    def n_reserved(self) -> int:
        """The features of G, if they are reserved."""
        return self.n_features if self.features == "reserved" else 0

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Objective on forget text plus divergence on retain text, on this turn's sequences."""
        if ctx.step % self.every_n_steps:
            return ctx.feature_acts.new_zeros(())
        space = ctx.needed_output_space("output_kl")
        turn = ctx.step // self.every_n_steps
        turns = space.turns(turn, self.n_sequences, self.n_sentences, self.retain_per_forget)
        parts = [part for part in turns if _positions(part.forget).any() and _positions(part.retain).any()]
        if not parts:
            return ctx.feature_acts.new_zeros(())
        edited = self._edited(ctx.sae, space, parts)
        divergence = _divergence(space, [part.retain for part in parts], [residual.retain for residual in edited])
        return self.forget_weight * self._unlearned(space, parts, edited) + self.retain_weight * divergence

    def _unlearned(self, space: OutputSpace, parts: Sequence[Sides], edited: Sequence[_Residuals]) -> Float[Tensor, ""]:
        objective = build_objective(self.objective, self.objective_options)
        forget = [part.forget for part in parts]
        model = reference = None
        with torch.no_grad():
            if objective.needs_model:
                model = _log_probs(space, [(part, part.residual) for part in forget])
            if objective.needs_reference:
                kept = _log_probs(space, [(part.retain, part.retain.residual) for part in parts])
                reference = kept.logsumexp(dim=0) - torch.tensor(len(kept)).log()
        targets = torch.cat([part.tokens[:, 1:][_positions(part)[:, :-1]] for part in forget])
        said = _log_probs(space, [(part, residual.forget) for part, residual in zip(forget, edited, strict=True)])
        return objective(ForgetPredictions(said, targets, reference, model))

    def _edited(self, sae: Any, space: OutputSpace, parts: Sequence[Sides]) -> list[_Residuals]:
        texts = [*(part.forget for part in parts), *(part.retain for part in parts)]
        tokens = torch.cat([text.residual[text.editable] for text in texts])
        acts, hidden_pre = encode_as_saved(sae, tokens.to(sae.W_dec) * space.activation_scale)
        codes = _Codes(acts.float(), hidden_pre.float())
        sizes = [int(text.editable.sum()) for text in texts]
        chosen = self._chosen(acts.detach(), sum(sizes[: len(parts)]))
        change = _clamp_change(sae, codes, chosen, self.multiplier, self.steepness) / space.activation_scale
        changed = [_changed(text, piece) for text, piece in zip(texts, change.split(sizes), strict=True)]
        return [_Residuals(*pair) for pair in zip(changed[: len(parts)], changed[len(parts) :], strict=True)]

    def _chosen(self, acts: Float[Tensor, "n d_sae"], n_forget: int) -> Int[Tensor, " chosen"]:
        if self.features == "reserved":
            return torch.arange(self.n_features, device=acts.device)
        forget_rates, retain_rates = ((part > 0).float().mean(dim=0) for part in (acts[:n_forget], acts[n_forget:]))
        eligible = (retain_rates < self.retain_threshold) & (forget_rates > 0)
        order = torch.sort(forget_rates, descending=True, stable=True).indices
        return order[eligible[order]][: self.n_features]


class _Residuals(NamedTuple):
    forget: Float[Tensor, "n pos d_model"]
    retain: Float[Tensor, "m pos d_model"]


class _Codes(NamedTuple):
    acts: Float[Tensor, "n d_sae"]
    hidden_pre: Float[Tensor, "n d_sae"]


def _clamp_change(
    sae: Any, codes: _Codes, features: Int[Tensor, " chosen"], multiplier: float, steepness: float
) -> Float[Tensor, "n d_in"]:
    """(z_new - z)[G] @ decoder rows[G]: forward the hard clamp, backward a sigmoid gate in place of z > 0."""
    acts = codes.acts.index_select(1, features)
    soft = soft_firing(codes.acts, codes.hidden_pre, features, steepness, sae)
    gate = (acts > 0).float() + (soft - soft.detach())
    rows = sae.W_dec.index_select(0, features).float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=-1, keepdim=True)
    return (gate * (-multiplier - acts)) @ rows


def _divergence(
    space: OutputSpace, texts: Sequence[Sequences], edited: Sequence[Float[Tensor, "n pos d_model"]]
) -> Float[Tensor, ""]:
    """Mean over positions of KL(p_model || p_edited); rows that no edit reaches add 0 and do not run."""
    n_positions = sum(int(_positions(text).sum()) for text in texts)
    rows = [(new != text.residual).flatten(1).any(dim=1) for text, new in zip(texts, edited, strict=True)]
    reached = [(text.rows(kept), new[kept]) for text, new, kept in zip(texts, edited, rows, strict=True) if kept.any()]
    if not reached:
        return edited[0].new_zeros(())
    with torch.no_grad():
        model = _log_probs(space, [(text, text.residual) for text, _ in reached])
    return kl_div(_log_probs(space, reached), model, log_target=True, reduction="sum") / n_positions


def _changed(side: Sequences, change: Float[Tensor, "n d_model"]) -> Float[Tensor, "batch pos d_model"]:
    edited = side.residual.clone()
    edited[side.editable] = (edited[side.editable].float() + change.to(edited.device)).to(edited.dtype)
    return edited


def _positions(side: Sequences) -> Bool[Tensor, "batch pos"]:
    positions = side.editable.clone()
    positions[:, :-1] &= side.editable[:, 1:]
    positions[:, -1] = False
    return positions


def _log_probs(
    space: OutputSpace, texts: Sequence[tuple[Sequences, Float[Tensor, "batch pos d_model"]]]
) -> Float[Tensor, "n d_vocab"]:
    """Next-token log-probabilities in float32 at the positions that count, text by text."""
    parts = [space.above(text.tokens, residual, _positions(text)) for text, residual in texts]
    return torch.cat(parts).float().log_softmax(dim=-1)
