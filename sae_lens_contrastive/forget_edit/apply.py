"""A forget edit put on a model that is run and generates as its library does, with a kept cache or without."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.forget_edit.edit import ForgetEdit
from sae_lens_contrastive.forget_edit.sequences import Sequences
from sae_lens_contrastive.forget_edit.taps import Arriving, n_layers, tap
from sae_lens_contrastive.interventions import Intervention, check_editable, decoder_rows, feature_acts
from sae_lens_contrastive.models.residual import n_blocks_below
from sae_lens_contrastive.saes.stock import fold_decoder_norms


def apply_forget_edit(model: Any, sae: Any, edit: ForgetEdit, tokenizer: Any = None) -> AppliedEdit:
    """Edit a model at its hook from now on, until `remove()` or the end of a `with` block.

    `model` is a HookedTransformer, a TransformerBridge or a causal language model of transformers, run whole or by its
    own `generate`. A gate looks at the tokens that are put to the model, not at those that it says; what it decides of
    a prompt holds for its continuation. `tokenizer` says which tokens are special; the model's own if it has one.

    Raises `UserError` for another SAE than the edit's, a model without the hook, or one of another kind.
    """
    check_editable(sae)
    edit.check_sae(sae)
    tokenizer = tokenizer or getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise UserError("The edit leaves special tokens alone, so it must know them. Give the model's tokenizer.")
    folded = fold_decoder_norms(copy.deepcopy(sae)) if hasattr(sae, "fold_W_dec_norm") else sae
    return AppliedEdit(
        model,
        edit.hook_name,
        folded,
        edit.features,
        edit.built(),
        tokenizer.all_special_ids,
        edit_special_tokens=edit.edit_special_tokens,
    )


class AppliedEdit:
    """An edit in place. Use it in a `with` block, or `remove` it.

    The first token of every sequence is left alone, and so are special ones unless they are to be edited too; in
    neither case have they a say in a gate.
    """

    def __init__(
        self,
        model: Any,
        hook_name: str,
        sae: Any,
        features: Sequence[int],
        intervention: Intervention,
        special: Collection[int],
        *,
        edit_special_tokens: bool,
    ) -> None:
        self.changed: Bool[Tensor, " batch"] = torch.zeros(0, dtype=torch.bool)
        """Sequences, of those that the model read last, of which a token was changed so far."""
        self._sae = sae
        self._features = features
        self._intervention = intervention
        self._rows = decoder_rows(sae, features)
        self._special = torch.tensor(sorted(special), dtype=torch.long)
        self._edit_special_tokens = edit_special_tokens
        self._sequences: Sequences | None = None
        self._n_asked: Int[Tensor, " batch"] | None = None
        self._arriving: Arriving | None = None
        self._hooks = tap(model, n_blocks_below(hook_name, n_layers(model)), self._read, self._edit)

    def _read(self, arriving: Arriving) -> None:
        batch = arriving.tokens.shape[0]
        if arriving.n_past == 0:
            if self._n_asked is not None and len(self._n_asked) != batch:
                raise UserError(f"asked_first told of {len(self._n_asked)} sequences, but {batch} came. Tell of each.")
            self._sequences = Sequences.new(batch, len(self._features), self._n_asked)
            self._n_asked = None
            self.changed = torch.zeros(batch, dtype=torch.bool)
        elif self._sequences is None or (len(self.changed), self._sequences.n_seen) != (batch, arriving.n_past):
            raise UserError(
                "The edit has not seen how these sequences begin. Put it on the model before their first tokens, and "
                "keep no cache from before."
            )
        self._arriving = arriving

    def _edit(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        arriving, sequences, self._arriving = self._arriving, self._sequences, None
        if arriving is None or sequences is None or arriving.tokens.shape != residual.shape[:2]:
            raise UserError("The edit has not seen the tokens of this forward pass. Run the model from its tokens on.")
        editable, asked = sequences.take(arriving, self._special, edit_special=self._edit_special_tokens)
        if not bool(editable.any()):
            return residual
        place, prompt = editable.to(residual.device), editable.nonzero()[:, 0]
        before = residual[place]
        acts = feature_acts(self._sae, before, self._features)
        new = sequences.edited(acts, prompt, asked[editable], self._intervention)
        self.changed[prompt[(new != acts).any(dim=1).cpu()]] = True
        edited = residual.clone()
        edited[place] = (before.float() + (new - acts) @ self._rows.to(acts.device)).to(residual.dtype)
        return edited

    def asked_first(self, n_tokens: Sequence[int]) -> None:
        """Say of the sequences that the model reads next how many tokens of each are what it is asked.

        The rest, such as an option of a question, is edited like them and has no say in a gate.
        """
        self._n_asked = torch.tensor(list(n_tokens), dtype=torch.long)

    def remove(self) -> None:
        """Leave the model as it was."""
        while self._hooks:
            self._hooks.pop().remove()

    def __enter__(self) -> AppliedEdit:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.remove()
