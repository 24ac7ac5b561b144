"""What a loss term is: a registered frozen dataclass, called with one training batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding

from sae_lens_contrastive.distributed import BatchShare, whole_rows, whole_sum
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.losses.soft_firing import firing_level
from sae_lens_contrastive.options import build_options, checked_value
from sae_lens_contrastive.registry import T_REGISTERED, Registry

GENERAL, FORGET, RETAIN = 0, 1, 2
"""Domain labels of a token, y in design terms."""

RESERVED_KEYS = ("coefficient", "warm_up_steps")

SAMPLE_TOKENS = 512
"""Tokens of a batch that terms with a cost above linear look at."""


class TokenSample(NamedTuple):
    """Evenly spaced tokens of a batch in float32, so that every domain keeps its share."""

    feature_acts: Float[Tensor, "n d_sae"]
    """Feature activations."""
    hidden_pre: Float[Tensor, "n d_sae"]
    """Pre-activations; the gradient of a few features is cheaper through `LossContext.pre_activations`."""
    domains: Int[Tensor, " n"] | None
    """Domain of each token."""

    def labels(self) -> Int[Tensor, " n"]:
        """Domain of each token; `ConfigError` if the run has no forget and retain corpus."""
        return _given(self.domains)


@dataclass(frozen=True)
class LossContext:
    """Everything a loss term may look at: one batch, after the forward pass of the SAE.

    Where several ranks train together, it is the whole batch of all ranks, unless the term says that it is computed
    `over_ranks`: then it is this rank's share of it, and `total`, `whole_sample` and `sample_acts` reach the others.
    """

    sae_in: Float[Tensor, "batch d_in"]
    """Activations the SAE was given, scaled as in training."""
    sae_out: Float[Tensor, "batch d_in"]
    """Their reconstruction."""
    feature_acts: Float[Tensor, "batch d_sae"]
    """Feature activations z >= 0, dense."""
    hidden_pre: Float[Tensor, "batch d_sae"]
    """Pre-activations."""
    W_dec: Float[Tensor, "d_sae d_in"]
    """Decoder; row i is the direction of feature i."""
    domains: Int[Tensor, " batch"] | None
    """`GENERAL`, `FORGET` or `RETAIN` for each token; None without a forget corpus."""
    groups: tuple[Int[Tensor, " size"], ...]
    """Feature indices of each correlation group; empty until the first grouping."""
    step: int = 0
    """Training steps done before this one."""
    sae: Any = None
    """The SAE under training, for terms that encode other text than the batch."""
    output_space: OutputSpace | None = None
    """The model above the hook with forget and retain sequences, for terms on what the model says."""
    share: BatchShare | None = None
    """How the batch is divided among ranks, if this is one rank's share of it."""
    batch_domains: Int[Tensor, " total"] | None = None
    """Domain of each token of all ranks, beside a share."""

    @cached_property
    def sample(self) -> TokenSample:
        """At most about `SAMPLE_TOKENS` tokens of the batch; terms that share it share its backward pass too.

        Of a share, those of them that are in it. Its gradient is only defined beside that of the reconstruction: see
        `_spaced`.
        """
        first, stride = self._first, self._stride
        domains = None if self.domains is None else self.domains[first::stride]
        return TokenSample(_spaced(self.feature_acts, first, stride), self.hidden_pre[first::stride].float(), domains)

    @cached_property
    def firing_level(self) -> Float[Tensor, "n 1"]:
        """Level above which a feature fires on each token of the sample, where the SAE has no thresholds of its own."""
        return firing_level(self.sample.feature_acts, self.sample.hidden_pre)

    def pre_activations(self, features: Int[Tensor, " m"], *, sampled: bool = False) -> Float[Tensor, "n m"]:
        """Pre-activations of a few features, on all tokens or on those of the sample.

        Its gradient costs what is read, not a tensor of the batch's size, but like that of the sample is only defined
        beside that of the reconstruction.
        """
        first, stride = (self._first, self._stride) if sampled else (0, 1)
        if self.hidden_pre.is_leaf:
            return self.hidden_pre[first::stride].index_select(1, features)
        rows = torch.arange(first, len(self.hidden_pre), stride).to(features)
        return _Entries.apply(self.hidden_pre, rows, features)

    def labels(self) -> Int[Tensor, " batch"]:
        """Domain of each token; `ConfigError` if the run has no forget and retain corpus."""
        return _given(self.domains)

    def labels_of_all(self) -> Int[Tensor, " total"]:
        """Domain of each token of the batch, those of other ranks included; `ConfigError` as for `labels`."""
        return _given(self.domains if self.share is None else self.batch_domains)

    def sample_labels_of_all(self) -> Int[Tensor, " n_sample"]:
        """Domain of each token of the sample, those of other ranks included; `ConfigError` as for `labels`."""
        return self.labels_of_all()[:: self._stride]

    def total(self, own: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Sum over ranks of what each made of its own tokens."""
        return own if self.share is None else whole_sum(own, self.share.weight)

    def mean(self, own: Float[Tensor, " n"], n_of_all: Int[Tensor, ""]) -> Float[Tensor, ""]:
        """Mean of a number for each of `n_of_all` tokens, of which this rank has its own; 0 if there are none."""
        if self.share is None:
            return own.mean() if len(own) else own.new_zeros(())
        return self.total(own.sum()) / n_of_all.clamp(min=1)

    def whole_sample(self, own: Float[Tensor, "n ..."]) -> Float[Tensor, "n_sample ..."]:
        """A row for each token of the sample, of this rank's rows for its own."""
        if self.share is None:
            return own
        return whole_rows(own, self.share.spaced(self._stride).sizes, self.share.weight)

    def sample_acts(self, places: Int[Tensor, " m"]) -> Float[Tensor, "m d_sae"]:
        """Feature activations of chosen tokens of the sample, whichever ranks they are on."""
        acts = self.sample.feature_acts
        if self.share is None:
            return acts.index_select(0, places)
        order = places.argsort(stable=True)
        own, counts = self.share.spaced(self._stride).divided(places[order].tolist())
        rows = whole_rows(acts[own], counts, self.share.weight)
        return rows.index_select(0, order.argsort())

    @cached_property
    def of_all_ranks(self) -> LossContext:
        """The whole batch, gathered with its gradient."""
        if (share := self.share) is None:
            return self
        names = ("sae_in", "sae_out", "feature_acts", "hidden_pre")
        rows = {name: whole_rows(getattr(self, name), share.sizes, share.weight) for name in names}
        return replace(self, **rows, domains=self.batch_domains, share=None, batch_domains=None)

    @property
    def _first(self) -> int:
        """First token of a share that is in the sample, which begins with the first of the whole batch."""
        return 0 if self.share is None else -self.share.own.start % self._stride

    @property
    def _stride(self) -> int:
        n_tokens = len(self.feature_acts) if self.share is None else self.share.n_rows
        return max(1, n_tokens // SAMPLE_TOKENS)

    def needed_output_space(self, term: str) -> OutputSpace:
        """The output space for a term that edits the residual stream or reads it as the model makes it.

        Raises `ConfigError`, naming the term, if there is none or the SAE does not see the residual stream itself.
        """
        if self.output_space is None or self.sae is None:
            raise ConfigError(
                f"The loss term {term} reads sequences of forget and retain text, but the run has prepared none. Train "
                "from a run configuration with a model, a forget and a retain corpus."
            )
        if self.sae.cfg.normalize_activations not in ("none", "expected_average_only_in"):
            raise ConfigError(
                f"The loss term {term} works on the residual stream, which needs normalize_activations: none or "
                f"expected_average_only_in; the SAE has {self.sae.cfg.normalize_activations!r}."
            )
        return self.output_space


def _given(domains: Int[Tensor, " n"] | None) -> Int[Tensor, " n"]:
    if domains is None:
        raise ConfigError(
            "A loss term needs the domain of every token, but the batch has none. Train with ContrastiveSAETrainer "
            "and give a forget and a retain corpus."
        )
    return domains


def _spaced(values: Float[Tensor, "batch d_sae"], first: int, stride: int) -> Float[Tensor, "n d_sae"]:
    """Every `stride`-th row from the first one on, in float32.

    In a training step the gradient of the reconstruction reaches `values` too. The rows' own gradient is sparse, so
    that autograd adds it to that one in place; a dense one would cost a tensor of the batch's size. On its own a
    sparse gradient goes no further than `values`: operations do not take one.
    """
    if stride == 1 or values.is_leaf:
        return values[first::stride].float()
    return embedding(torch.arange(first, len(values), stride, device=values.device), values, sparse=True).float()


class _Entries(torch.autograd.Function):
    """Some rows of some columns, with a sparse gradient: what `_spaced` says of it holds here."""

    @staticmethod
    def forward(
        ctx: Any, values: Float[Tensor, "batch d_sae"], rows: Int[Tensor, " n"], columns: Int[Tensor, " m"]
    ) -> Float[Tensor, "n m"]:
        ctx.save_for_backward(rows, columns)
        ctx.shape = values.shape
        return values[rows[:, None], columns]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        (gradient,) = gradients
        places = torch.stack([rows.repeat_interleave(len(columns)), columns.repeat(len(rows))])
        return torch.sparse_coo_tensor(places, gradient.flatten(), ctx.shape, check_invariants=False), None, None


class LossTerm(ABC):
    """One term of the objective, before its coefficient.

    A subclass is a frozen dataclass registered under a name; the name is its key in `loss_terms`, its warm-up key and
    its log key. It returns a scalar; the SAE multiplies by the coefficient.
    """

    needs_domains: ClassVar[bool] = False
    """Whether the term reads domain labels, so that a run without a forget corpus can be refused early."""
    needs_groups: ClassVar[bool] = False
    """Whether the term reads correlation groups, so that a run without the tracker can be refused early."""
    needs_output_space: ClassVar[bool] = False
    """Whether the term reads text at the hook or runs the model above it, so that a run prepares sequences for it."""
    over_ranks: ClassVar[bool] = False
    """Whether the term is computed from this rank's share of the batch, and joins what other ranks have of theirs; all
    ranks must come to the same value. Any other term is given the whole batch, which is gathered for it."""
    runs_model: ClassVar[bool] = False
    """Whether the term runs the model above the hook on that text, so that an estimate counts it and no stream runs the
    model at the same time."""

    @property
    def needs_sentences(self) -> bool:
        """Whether the term reads single sentences of both sides."""
        return False

    @property
    def n_reserved(self) -> int:
        """Number of features, from the first on, that the term keeps for itself: no surgery touches them."""
        return 0

    @abstractmethod
    def __call__(self, ctx: LossContext) -> Float[Tensor, ""]:
        """Value of the term on one batch."""


class WeightedTerm(NamedTuple):
    """A loss term with the coefficient it is multiplied by and the steps of its linear warm-up."""

    term: LossTerm
    coefficient: float
    warm_up_steps: int


LOSS_TERMS = Registry("loss term")
"""Loss terms by the names that configurations use."""


def register_loss_term(name: str) -> Callable[[T_REGISTERED], T_REGISTERED]:
    """Register a loss term class under `name`; `ValueError` if the name is taken by another class."""
    return LOSS_TERMS.register(name)


def build_loss_terms(loss_terms: Mapping[str, Mapping[str, Any]]) -> dict[str, WeightedTerm]:
    """Build the terms of a configuration `{name: {coefficient, warm_up_steps, ...fields of the term}}`.

    Raises `ConfigError` for an unknown term or key, a missing coefficient, or a value of the wrong type.
    """
    return {name: _build(name, options) for name, options in loss_terms.items()}


def _build(name: str, options: Mapping[str, Any]) -> WeightedTerm:
    term_class = LOSS_TERMS.named(name)
    if not isinstance(options, Mapping):
        raise ConfigError(f"loss_terms.{name} must be a mapping such as {{coefficient: 0.1}}, got {options!r}.")
    own = {key: value for key, value in options.items() if key not in RESERVED_KEYS}
    if "coefficient" not in options:
        raise ConfigError(f"loss_terms.{name} has no coefficient. Add for example coefficient: 0.1.")
    coefficient = checked_value(f"loss_terms.{name}.coefficient", options["coefficient"], float)
    warm_up_steps = checked_value(f"loss_terms.{name}.warm_up_steps", options.get("warm_up_steps", 0), int)
    if warm_up_steps < 0:
        raise ConfigError(f"loss_terms.{name}.warm_up_steps is {warm_up_steps}; it must be 0 or more steps.")
    return WeightedTerm(build_options(f"loss_terms.{name}", term_class, own), coefficient, warm_up_steps)
