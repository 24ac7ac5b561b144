"""A model with an edit in place, run whole, so that its weights may change and gradients reach all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.data.batching import editable_tokens, pad_right
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.forget_edit import AppliedEdit
from sae_lens_contrastive.interventions import Intervention, check_editable, edit_residual
from sae_lens_contrastive.models.residual import n_blocks_below, only_positions
from sae_lens_contrastive.unlearning.corpus import mask_right
from sae_lens_contrastive.unlearning.prompts import Prompt


@dataclass(frozen=True)
class SaeEdit:
    """What is done to which features of an SAE."""

    sae: Any
    """SAE, or ensemble, that has the features."""
    features: tuple[int, ...]
    """Features to edit."""
    intervention: Intervention
    """What is done to them, fitted where it needs that."""
    special_tokens: bool = False
    """Whether special tokens are edited too; position 0 never is."""


@dataclass(frozen=True, eq=False)
class WeightEdit:
    """Weights that take the place of a model's own, as unlearning by fine-tuning leaves them."""

    weights: Mapping[str, Tensor]
    """New values by the names of the model's parameters; parameters that are not named stay."""

    @contextmanager
    def in_place(self, model: Any) -> Iterator[None]:
        """While in this context the model has these weights; afterwards it has the tensors that it had before.

        Raises `ConfigError` for a name or shape that the model lacks.
        """
        parameters = dict(model.named_parameters())
        for name, weight in self.weights.items():
            if name not in parameters or parameters[name].shape != weight.shape:
                raise ConfigError(f"The model has no weight {name!r} of shape {tuple(weight.shape)}.")
        kept = {name: parameters[name].data for name in self.weights}
        try:
            for name, weight in self.weights.items():
                parameters[name].data = weight.to(kept[name])
            yield
        finally:
            for name, weight in kept.items():
                parameters[name].data = weight


@dataclass(frozen=True)
class TokenBatch:
    """Sequences padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    """Token ids."""
    editable: Bool[Tensor, "batch pos"]
    """Tokens that an edit may change."""
    counted: Bool[Tensor, "batch pos"]
    """Tokens that have a say in a gate."""


class EditedModel:
    """A model under an edit, of its residual stream at a hook or of its weights; without an edit, the model itself.

    Raises `UserError` for an SAE that cannot be edited, `ConfigError` for a hook off the residual stream.
    """

    def __init__(self, model: Any, hook_name: str, edit: SaeEdit | WeightEdit | None = None) -> None:
        n_blocks_below(hook_name, model.cfg.n_layers)
        if isinstance(edit, SaeEdit):
            check_editable(edit.sae)
        self.model = model
        self.hook_name = hook_name
        self.edit = edit
        self.special = set(model.tokenizer.all_special_ids)

    def batch(self, sequences: Sequence[Sequence[int]], n_asked: Sequence[int]) -> TokenBatch:
        """Pad sequences; of each, those of the first `n_asked` tokens that are not special have a say in a gate."""
        tokens = pad_right(sequences, self.model)
        spared = set() if isinstance(self.edit, SaeEdit) and self.edit.special_tokens else self.special
        editable = [editable_tokens(sequence, spared) for sequence in sequences]
        # Special tokens have no say in a gate, edited or not: it is fitted without them.
        counted = [editable_tokens(row[:n], self.special) for row, n in zip(sequences, n_asked, strict=True)]
        return TokenBatch(tokens, mask_right(editable, tokens), mask_right(counted, tokens))

    def edited(self, residual: Float[Tensor, "batch pos d_model"], batch: TokenBatch) -> Tensor:
        """Residual stream at the hook after the edit."""
        edit = self.edit
        if not isinstance(edit, SaeEdit):
            return residual
        return edit_residual(edit.sae, residual, edit.features, edit.intervention, batch.editable, batch.counted)

    def logits(self, batch: TokenBatch, positions: Bool[Tensor, "batch pos"]) -> Float[Tensor, "n_positions d_vocab"]:
        """Next-token logits at the chosen positions, row by row, differentiable in the model's weights."""

        def hook(residual: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 - the host passes hook by name
            return self.edited(residual, batch)

        with self._weights(), only_positions(self.model.unembed, positions):
            logits = self.model.run_with_hooks(batch.tokens, fwd_hooks=[(self.hook_name, hook)])
        return logits.reshape(-1, logits.shape[-1])

    @contextmanager
    def generating(self) -> Iterator[None]:
        """While in this context the model runs and generates under the edit, and may keep a cache."""
        with ExitStack() as stack:
            stack.enter_context(self._weights())
            if isinstance(edit := self.edit, SaeEdit):
                applied = AppliedEdit(
                    self.model,
                    self.hook_name,
                    edit.sae,
                    edit.features,
                    edit.intervention,
                    self.special,
                    edit_special_tokens=edit.special_tokens,
                )
                stack.enter_context(applied)
            yield

    def applied(self) -> EditedModel:
        """The same edit with the model's weights as it leaves them, for training on; an edit at a hook stays there."""
        if not isinstance(self.edit, WeightEdit):
            return self
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in self.edit.weights.items():
                parameters[name].copy_(weight)
        return EditedModel(self.model, self.hook_name)

    def _weights(self) -> AbstractContextManager[None]:
        return self.edit.in_place(self.model) if isinstance(self.edit, WeightEdit) else nullcontext()

    def spot_log_probs(
        self, prompts: Sequence[Prompt], n_asked: Sequence[int] | None = None
    ) -> list[Float[Tensor, " n_spots"]]:
        """Log-probabilities, in nats, of the spots of prompts without branches.

        The first `n_asked` tokens of each have a say in a gate; without it those before the answer.
        """
        n_asked = [prompt.n_asked for prompt in prompts] if n_asked is None else n_asked
        batch = self.batch([prompt.tokens for prompt in prompts], n_asked)
        spots = [(row, spot) for row, prompt in enumerate(prompts) for spot in prompt.spots]
        device = batch.tokens.device
        where = torch.tensor([(row, spot.position) for row, spot in spots], device=device).T
        positions = torch.zeros_like(batch.tokens, dtype=torch.bool)
        positions[where[0], where[1]] = True
        logits = self.logits(batch, positions).float()
        # Logits come row by row; the running count of the mask is the place of each among them.
        place = (positions.flatten().cumsum(0) - 1).view(positions.shape)[where[0], where[1]]
        targets = torch.tensor([spot.token for _, spot in spots], device=device)
        values = logits[place, targets] - logits.logsumexp(dim=-1)[place]
        return list(values.split([len(prompt.spots) for prompt in prompts]))
