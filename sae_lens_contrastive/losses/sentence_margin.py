"""Sentence-margin term: reserved features fire somewhere in every forget sentence and nowhere in a retain sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.base import LossContext, LossTerm, register_loss_term
from sae_lens_contrastive.losses.output_space import Sequences
from sae_lens_contrastive.losses.soft_firing import own_thresholds

_WINDOW = 32


@register_loss_term("sentence_margin")
@dataclass(frozen=True)
class SentenceMargin(LossTerm):
    """Make the first `n_features` features G tell forget from retain sentences, token by token where they can.

    With e_t = strictness + max over i in G of (hidden_pre_i(t) - theta) / temperature, theta the firing level,
    L = forget_weight * ((1 - token_share) * trimmed mean over forget sentences of softplus(margin - max over t of e_t)
                         + token_share * trimmed mean over tokens of forget sentences of softplus(margin - e_t))
      + retain_weight * mean over the hardest retain sentences and windows of softplus(margin + max over t of e_t).
    A forget sentence counts up to a token drawn at random, so that its first telling words must do. The trimmed means
    leave out the `trimmed_sentences` and `trimmed_tokens` of a step with the highest loss: text of a domain has
    sentences that do not speak of it, and most tokens of those that do are like any other. Windows are pieces of 32
    tokens of `n_sequences` retain sequences. The hardest are the `hard_share` of a step with the highest loss: text
    close to the forget domain, whichever it is. theta is the threshold of a JumpReLU or BatchTopK SAE, and else
    the median level over the tokens of the batch, a constant: a TopK SAE, whose level differs from token to token,
    follows it roughly. Sources: Andrews et al. 2003, "Support vector machines for multiple-instance learning", with
    the logistic loss in place of the hinge; Shrivastava et al. 2016, "Training region-based object detectors with
    online hard example mining"; Shen and Sanghavi 2019, "Learning with bad training data via iterative trimmed loss
    minimization".
    """

    n_features: int = 32
    """|G|: features 0 to n_features - 1 are reserved."""
    temperature: float = 0.1
    """Excess of the pre-activation over the firing level that counts as 1."""
    strictness: float = 0.2
    """e_t at the firing level. 0 lets fire what is as likely of the forget domain as not; above 0 fewer tokens do."""
    margin: float = 0.0
    """What is asked of e_t on forget text, and of -e_t on retain text."""
    token_share: float = 0.5
    """Weight of single tokens on forget text, in [0, 1]; the rest is the strongest token of a sentence."""
    trimmed_sentences: float = 0.15
    """Share of a step's forget sentences that does not count, those with the highest loss, in [0, 1)."""
    trimmed_tokens: float = 0.7
    """Share of a step's single tokens of forget text that does not count, those with the highest loss, in [0, 1)."""
    forget_weight: float = 1.0
    """Weight of forget text."""
    retain_weight: float = 1.0
    """Weight of retain text."""
    hard_share: float = 0.125
    """Share of a step's retain sentences and windows that counts, those with the highest loss, in (0, 1]."""
    n_sentences: int = 64
    """Forget sentences a step."""
    retain_per_forget: int = 6
    """Retain sentences for each forget sentence."""
    n_sequences: int = 16
    """Retain sequences a step, cut into windows; 0 for none."""
    min_tokens: int = 5
    """Tokens of a forget sentence that count at least."""

    needs_domains = True
    needs_output_space = True
    over_ranks = True

    def __post_init__(self) -> None:
        for name in ("n_features", "n_sentences", "retain_per_forget", "min_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sentence_margin.{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.n_sequences < 0:
            raise ConfigError(f"sentence_margin.n_sequences is {self.n_sequences}; it must be 0 or more.")
        if not 0 <= self.token_share <= 1:
            raise ConfigError(f"sentence_margin.token_share is {self.token_share}; it must be in [0, 1].")
        for name in ("trimmed_sentences", "trimmed_tokens"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"sentence_margin.{name} is {getattr(self, name)}; it must be in [0, 1).")
        if not 0 < self.hard_share <= 1:
            raise ConfigError(f"sentence_margin.hard_share is {self.hard_share}; it must be above 0 and at most 1.")
        if self.temperature <= 0:
            raise ConfigError(f"sentence_margin.temperature is {self.temperature}; it must be above 0.")
        if min(self.margin, self.forget_weight, self.retain_weight) < 0:
            raise ConfigError("sentence_margin.margin, forget_weight and retain_weight must be 0 or more.")

    @property
    def needs_sentences(self) -> bool:
        """It reads nothing else of forget text."""
        return True

    @property
    def n_reserved(self) -> int:
        """The features of G."""
        return self.n_features

    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Logistic losses of sentences and tokens, on this step's sentences."""
        space = ctx.needed_output_space("sentence_margin")
        (sides,) = space.turns(ctx.step, 0, self.n_sentences, self.retain_per_forget)
        counts = _cut(sides.forget.editable, self.min_tokens, ctx.step)
        retain_texts = [sides.retain]
        if self.n_sequences:
            retain_texts.append(_windows(space.retain.turn(ctx.step, self.n_sequences)))
        excess = partial(self._excess, ctx.sae, space.activation_scale, self._firing_level(ctx))
        with torch.no_grad():
            # Of retain text only the strongest tokens have a gradient: the others cost half as much without one.
            of_retain = torch.cat([_strongest_tokens(text, excess) for text in retain_texts])
        of_forget = sides.forget.residual[counts]
        forget, retain = excess(torch.cat([of_forget, of_retain])).split([len(of_forget), len(of_retain)])
        of_sentences = softplus(self.margin - _strongest(_laid_out(forget, counts), counts))
        of_tokens = softplus(self.margin - forget)
        forget_loss = (1 - self.token_share) * _share(of_sentences, 1 - self.trimmed_sentences, largest=False).mean()
        forget_loss = forget_loss + self.token_share * _share(of_tokens, 1 - self.trimmed_tokens, largest=False).mean()
        retain_loss = _share(softplus(self.margin + retain), self.hard_share, largest=True).mean()
        return self.forget_weight * forget_loss + self.retain_weight * retain_loss

    def _firing_level(self, ctx: LossContext) -> Float[Tensor, " n"] | Float[Tensor, ""]:
        thresholds = own_thresholds(ctx.sae)
        if thresholds is not None:
            return thresholds[: self.n_features]
        # Not the mean: a few huge tokens would decide where it lies.
        return ctx.whole_sample(ctx.firing_level).median()

    def _excess(
        self,
        sae: Any,
        activation_scale: float,
        theta: Float[Tensor, " n_features"] | Float[Tensor, ""],
        residual: Float[Tensor, "n d_model"],
    ) -> Float[Tensor, " n"]:
        """e_t of each token."""
        encoder = sae.W_enc[:, : self.n_features]
        # What the SAE takes off its input is the same for all tokens: none of them is written anew for it.
        origin = sae.process_sae_in(encoder.new_zeros(1, len(encoder)))
        hidden_pre = activation_scale * (residual.to(encoder) @ encoder)
        hidden_pre = hidden_pre + (origin @ encoder + sae.b_enc[: self.n_features])
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            hidden_pre = hidden_pre * sae.W_dec[: self.n_features].norm(dim=-1)
        return self.strictness + (hidden_pre - theta).amax(dim=-1).float() / self.temperature


def _cut(editable: Bool[Tensor, "n pos"], min_tokens: int, step: int) -> Bool[Tensor, "n pos"]:
    """The first tokens of each sentence, at least `min_tokens` if it has them; how many is drawn by the step."""
    place = editable.cumsum(dim=1)
    length = place[:, -1]
    shortest = length.clamp(max=min_tokens)
    drawn = torch.rand(len(length), generator=torch.Generator().manual_seed(step)).to(length.device)
    kept = shortest + (drawn * (length - shortest + 1)).long()
    return editable & (place <= kept[:, None])


def _laid_out(excess: Float[Tensor, " m"], counts: Bool[Tensor, "n pos"]) -> Float[Tensor, "n pos"]:
    """A value of each token that counts, at its place."""
    return excess.new_zeros(counts.shape).masked_scatter(counts, excess)


def _strongest(excess: Float[Tensor, "n pos"], counts: Bool[Tensor, "n pos"]) -> Float[Tensor, " m"]:
    """Highest excess among the tokens that count, of each row that has any."""
    rows = counts.any(dim=1)
    return excess.masked_fill(~counts, -torch.inf)[rows].amax(dim=1)


def _strongest_tokens(
    text: Sequences, excess: Callable[[Float[Tensor, "m d_model"]], Float[Tensor, " m"]]
) -> Float[Tensor, "n_rows d_model"]:
    """The editable token of highest excess, of each row that has any."""
    found = _laid_out(excess(text.residual[text.editable]), text.editable).masked_fill(~text.editable, -torch.inf)
    rows = text.editable.any(dim=1)
    return text.residual[rows, found.argmax(dim=1)[rows]]


def _share(losses: Float[Tensor, " n"], share: float, *, largest: bool) -> Float[Tensor, " m"]:
    """The largest or smallest of the losses, `share` of them and at least one."""
    return losses.topk(math.ceil(share * len(losses)), largest=largest).values


def _windows(text: Sequences) -> Sequences:
    n_windows = text.tokens.shape[1] // _WINDOW
    if n_windows == 0:
        return text
    kept = n_windows * _WINDOW
    return Sequences(
        text.tokens[:, :kept].reshape(-1, _WINDOW),
        text.residual[:, :kept].reshape(-1, _WINDOW, text.residual.shape[-1]),
        text.editable[:, :kept].reshape(-1, _WINDOW),
    )
