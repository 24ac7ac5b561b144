"""RMU's training: the loss, what learns, and the text that the steps take in turns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.models.residual import blocks_replaced
from sae_lens_contrastive.unlearning.corpus import Contexts
from sae_lens_contrastive.unlearning.measures import WeightEdit

N_LAYERS = 3
"""MLPs that learn, the layer's own the last."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Rmu(StrictModel):
    """Hyperparameters."""

    steering: Positive
    """c in units of the mean norm of the residual stream on forget text."""
    retain_weight: Positive
    """Weight of the retain side."""
    lr: Positive
    """Learning rate of AdamW."""
    n_steps: Count
    """Steps, each on other sequences."""
    n_sequences: Count
    """Sequences of either side in a step."""


class RmuTrainer:
    """A model with sequences of both sides by source, their residual stream below what learns computed once.

    Raises `UserError` for a model whose MLPs are named otherwise.
    """

    def __init__(self, model: Any, layer: int, forget: Sequence[Contexts], retain: Sequence[Contexts]) -> None:
        self.model = model
        self.layer = layer
        self.first = layer - N_LAYERS + 1
        if not any(map(self._learns, dict(model.named_parameters()))):
            raise UserError(
                f"{model.cfg.model_name} has no weight called layers.{layer} ... mlp ... down_proj, which RMU trains. "
                "Choose a model of the Llama, Gemma or Qwen families."
            )
        self.forget, self.retain = self._side(forget, "forget"), self._side(retain, "retain")

    def check(self, options: Rmu) -> None:
        """`UserError` if a step takes more sequences than a side has."""
        most = min(len(side.sequences.tokens) for side in (self.forget, self.retain))
        if options.n_sequences > most:
            raise UserError(f"n_sequences is {options.n_sequences}; the shorter side has {most} sequences.")

    def train(self, options: Rmu, seed: int) -> WeightEdit:
        """Weights after training with options that `check` lets pass; the model's own are put back."""
        named = {name: p for name, p in self.model.named_parameters() if self._learns(name)}
        before = {name: weight.detach().clone() for name, weight in named.items()}
        generator = torch.Generator().manual_seed(seed)
        direction = torch.nn.functional.normalize(torch.rand(self.model.cfg.d_model, generator=generator), dim=0)
        target = options.steering * self._mean_norm() * direction.to(self.model.cfg.device)
        optimizer = torch.optim.AdamW(named.values(), lr=options.lr)
        sides = (self._batches(side, options, generator) for side in (self.forget, self.retain))
        batches = itertools.islice(zip(*sides, strict=True), options.n_steps)
        try:
            for weight in named.values():
                weight.requires_grad_(True)
            for forget, retain in tqdm(batches, total=options.n_steps, desc="RMU", unit="step"):
                steered = (self._residual(forget.tokens, forget.below) - target).square().mean()
                held = (self._residual(retain.tokens, retain.below) - retain.residual).square().mean()
                optimizer.zero_grad()
                (steered + options.retain_weight * held).backward()
                optimizer.step()
            return WeightEdit({name: weight.detach().clone() for name, weight in named.items()})
        finally:
            for name, weight in named.items():
                weight.requires_grad_(False)
                weight.data = before[name]
                weight.grad = None

    def _learns(self, name: str) -> bool:
        match = re.search(r"layers\.(\d+)\..*mlp.*down_proj.*weight$", name)
        return match is not None and self.first <= int(match[1]) <= self.layer

    def _side(self, sources: Sequence[Contexts], name: str) -> _Side:
        tokens = torch.tensor([row for contexts in sources for row in contexts.tokens], device=self.model.cfg.device)
        hook_name = f"blocks.{self.first - 1}.hook_resid_post"
        read: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for chunk in tqdm(tokens.split(16), desc=f"RMU, {name} text", unit="batch"):
                below = residual_at_hook(self.model, hook_name, chunk)
                read.append((below, self._residual(chunk, below)))
        ends = list(itertools.accumulate(len(contexts.tokens) for contexts in sources))
        rows = [range(start, end) for start, end in itertools.pairwise([0, *ends])]
        below, residual = map(torch.cat, zip(*read, strict=True))
        return _Side(_Sequences(tokens, below, residual), rows)

    def _mean_norm(self) -> float:
        return self.forget.sequences.residual.norm(dim=-1).mean().item()

    def _residual(
        self, tokens: Int[Tensor, "batch pos"], below: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos_after_first d_model"]:
        hook_name = f"blocks.{self.layer}.hook_resid_post"
        seen: list[Tensor] = []

        def see(residual: Tensor, hook: Any) -> None:  # noqa: ARG001 - the host passes hook by name
            seen.append(residual)

        # Not run_with_cache: that detaches what it keeps.
        with blocks_replaced(self.model.blocks[: self.first], below):
            self.model.run_with_hooks(tokens, fwd_hooks=[(hook_name, see)], stop_at_layer=self.layer + 1)
        return seen[0][:, 1:]

    def _batches(self, side: _Side, options: Rmu, generator: torch.Generator) -> Iterator[_Sequences]:
        turns = itertools.cycle([_shuffled(rows, generator) for rows in side.rows_of_sources])
        while True:
            rows = torch.tensor([next(each) for each in itertools.islice(turns, options.n_sequences)])
            read = side.sequences
            yield _Sequences(read.tokens[rows], read.below[rows], read.residual[rows])


def _shuffled(rows: range, generator: torch.Generator) -> Iterator[int]:
    """All rows in one order after another."""
    while True:
        yield from (rows[place] for place in torch.randperm(len(rows), generator=generator).tolist())


@dataclass(frozen=True)
class _Sequences:
    tokens: Tensor
    below: Tensor
    """Residual stream below the first block that learns."""
    residual: Tensor
    """The unedited model's residual stream at the layer, position 0 left out."""


@dataclass(frozen=True)
class _Side:
    sequences: _Sequences
    rows_of_sources: list[range]
    """Rows of each source, which take turns."""
