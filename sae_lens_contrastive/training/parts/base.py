"""Parts of a training run that watch the features or change them between steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from sae_lens.saes.sae import TrainStepOutput
from torch import Tensor
from torch.optim import Optimizer

from sae_lens_contrastive.data.streams import under_prefix, with_prefix
from sae_lens_contrastive.distributed import BatchShare, rows_of_all, summed
from sae_lens_contrastive.features.grouping import FeatureGroups
from sae_lens_contrastive.losses.output_space import OutputSpace
from sae_lens_contrastive.saes import ContrastiveObjective


@dataclass
class FeatureState:
    """What the parts of one run know about its features; each part writes its own field."""

    pruned: Bool[Tensor, " d_sae"]
    """Features that are masked: their weights stay zero until they are reinitialised."""
    reserved: Bool[Tensor, " d_sae"]
    """Features that a loss term keeps for itself: they are neither masked nor reinitialised."""
    groups: FeatureGroups | None = None
    """Current correlation groups or clusters."""
    importance: Float[Tensor, " d_sae"] | None = None
    """Current importance of each feature, in [0, 1]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything as tensors."""
        state = {"pruned": self.pruned}
        if self.importance is not None:
            state["importance"] = self.importance
        if self.groups is not None:
            state["threshold"] = torch.tensor(self.groups.threshold, dtype=torch.float64)
            state |= {f"group_{i}": group for i, group in enumerate(self.groups.groups)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of `state_dict` over."""
        self.pruned = state["pruned"]
        self.importance = state.get("importance")
        self.groups = None
        if "threshold" in state:
            n_groups = sum(name.startswith("group_") for name in state)
            groups = tuple(state[f"group_{i}"] for i in range(n_groups))
            self.groups = FeatureGroups(groups, float(state["threshold"]))


@dataclass(frozen=True)
class StepView:
    """One finished training step, as the parts see it.

    Where ranks train together, `output` is of this rank's share of the batch and everything else is of all ranks.
    What a part keeps or changes must come out the same on every rank: `whole`, `total` and `sampled_acts` make it so.
    """

    step: int
    """Steps done before this one."""
    sae: ContrastiveObjective
    """The SAE, after the optimiser's step."""
    optimizer: Optimizer
    """Its optimiser."""
    output: TrainStepOutput
    """Forward pass of the step; `output.feature_acts.grad` is there if a part asked for it."""
    domains: Int[Tensor, " batch"] | None
    """Domain of each token of the batch, those of other ranks included."""
    passes_since_fired: Float[Tensor, " d_sae"]
    """Steps since each feature fired; a part that revives a feature sets its entry to 0."""
    dead: Bool[Tensor, " d_sae"]
    """Features that have not fired for `dead_feature_window` steps and are not pruned."""
    features: FeatureState
    """What the parts know, shared between them."""
    seed: int
    """Seed of the run, for parts that draw: with the step it makes a generator, so no state is kept."""
    output_space: OutputSpace | None = None
    """The model above the hook with sequences of forget and retain text, if the run has prepared it."""
    share: BatchShare | None = None
    """How the batch is divided among ranks, if `output` is of this rank's share of it."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the batch, those of other ranks included."""
        return len(self.output.feature_acts) if self.share is None else self.share.n_rows

    @property
    def own_domains(self) -> Int[Tensor, " own"] | None:
        """Domain of each token that `output` is of."""
        return self.domains if self.share is None or self.domains is None else self.domains[self.share.own]

    def whole(self, own: Float[Tensor, "own ..."]) -> Float[Tensor, "batch ..."]:
        """A row for each token of the batch, of this rank's rows for its own; without gradient."""
        return own if self.share is None else rows_of_all(own, self.share.sizes)

    def total(self, own: Tensor) -> Tensor:
        """Sum over ranks of what each made of its own tokens; without gradient."""
        return own if self.share is None else summed(own)

    def mean(self, own: Float[Tensor, "own n"]) -> Float[Tensor, " n"]:
        """Mean over the tokens of the batch in float32; without gradient."""
        if self.share is None:
            return own.mean(dim=0, dtype=torch.float32)
        return summed(own.sum(dim=0, dtype=torch.float32)) / self.share.n_rows

    def sampled_acts(self, n: int) -> Float[Tensor, "n d_sae"]:
        """Feature activations of evenly spaced tokens of the batch, at most n."""
        acts = self.output.feature_acts.detach()
        n = min(n, self.n_tokens)
        places = torch.arange(n) * self.n_tokens // max(1, n)
        if self.share is None or n == 0:
            return acts[places]
        own, counts = self.share.divided(places.tolist())
        return rows_of_all(acts[own].float(), counts)


MOST_RECORDS = 2000
"""Measurements that are kept for a figure; a longer training keeps every second one, then every fourth, and so on."""


def with_measurement(
    records: list[dict[str, Any]], record: dict[str, Any], number: Callable[[dict[str, Any]], int]
) -> list[dict[str, Any]]:
    """Records with another one, thinned evenly to `MOST_RECORDS`.

    What is kept goes by the number of each measurement alone, so that a resumed training keeps the same ones.
    """
    one_in = 2 ** (number(record) // MOST_RECORDS).bit_length()
    if number(record) % one_in == 0:
        records = [*records, record]
    return records if len(records) <= MOST_RECORDS else [kept for kept in records if number(kept) % one_in == 0]


def shown_in_history(log: Mapping[str, Any], metrics: Collection[str]) -> dict[str, float]:
    """Of what the host logs of a step: losses, explained variance, l0 and the figures of the parts, by short names."""
    found = {}
    for name, value in log.items():
        section, _, short = name.partition("/")
        if section == "losses" or short in ("explained_variance", "l0") or short in metrics:
            found[short] = float(value)
    return found


class TrainingPart(ABC):
    """A tracker or a surgery: looks at every finished step, acts on its own schedule, saves its state.

    `records` are kept for figures and written to `trackers.json` under the part's name.
    """

    name: ClassVar[str]
    """Key of the part: its section in the SAE configuration, its records, its saved state."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.gradients: dict[str, Tensor] = {}
        """Gradients of the step that the part took over from the host's optimiser."""

    def wants_gradients(self, step: int) -> bool:  # noqa: ARG002 - for those who need it
        """Whether the step should keep the gradient of the loss with respect to the feature activations."""
        return False

    def measured(self, every_n_steps: int, record: dict[str, Any]) -> None:
        """Keep what is measured every so many steps, for figures."""
        self.records = with_measurement(self.records, record, lambda record: (record["step"] + 1) // every_n_steps)

    @abstractmethod
    def after_step(self, view: StepView) -> None:
        """Look at a finished step, and act if it is time."""

    def metrics(self, features: FeatureState) -> dict[str, float]:  # noqa: ARG002 - for those who need it
        """Numbers for the training history, present from the first time they are known."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs; records are saved apart."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - a part may have no state
        """Take the tensors of `state_dict` over."""


def state_of_parts(features: FeatureState, parts: Sequence[TrainingPart]) -> dict[str, Tensor]:
    """What the parts of a run share and what each keeps, under their names."""
    state = with_prefix("features", features.state_dict())
    for part in parts:
        state |= with_prefix(part.name, part.state_dict())
    return state


def load_state_of_parts(state: dict[str, Tensor], features: FeatureState, parts: Sequence[TrainingPart]) -> None:
    """Take the tensors of `state_of_parts` over."""
    features.load_state_dict(under_prefix("features", state))
    for part in parts:
        part.load_state_dict(under_prefix(part.name, state))
