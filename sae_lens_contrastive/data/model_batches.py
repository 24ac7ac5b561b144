"""The model's batches of a corpus, which ranks that train together run in turns."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import torch
from jaxtyping import Float
from sae_lens.training.activations_store import ActivationsStore
from torch import Tensor

from sae_lens_contrastive.distributed import n_ranks, rank, row_counts, rows_of_all
from sae_lens_contrastive.errors import UserError


def corpus_too_small(store: ActivationsStore, label: str) -> UserError:
    """The error for a corpus that ends before it fills one batch of the model."""
    return UserError(
        f"The {label} corpus is smaller than one batch of the model "
        f"({store.store_batch_size_prompts} x {store.context_size} tokens). Give more text or lower "
        "training.store_batch_size_prompts."
    )


class ModelBatches:
    """Activations of the model's batches of a corpus, in order; ranks share the running of the model.

    Of the batches that come next, each rank runs the model on one and reads past the text of the others; then all have
    them all. So what comes does not depend on the number of ranks.
    """

    def __init__(self, store: ActivationsStore) -> None:
        self.store = store
        self._ready: deque[Tensor] = deque()
        self._has_ended = False

    def read(self) -> Float[Tensor, "n d_in"]:
        """Activations of the next batch; `StopIteration` once where the corpus ends, after which it begins again."""
        if n_ranks() == 1:
            return self.store.get_filtered_llm_batch(raise_on_epoch_end=True)
        if not self._ready and not self._has_ended:
            self._ready.extend(self._read_round())
        if self._ready:
            return self._ready.popleft()
        self._has_ended = False
        raise StopIteration

    def skip(self) -> None:
        """Read past the text of the next batch without running the model; `StopIteration` where the corpus ends."""
        if self.store.cached_activation_dataset is None:
            self.store.get_batch_tokens(raise_at_epoch_end=True, move_to_model_device=False)
        else:
            self.store.get_raw_llm_batch(raise_on_epoch_end=True)

    def _read_round(self) -> list[Tensor]:
        # The host gives the model's activations as float32, whatever the store's own dtype; kept ones have that.
        dtype = torch.float32 if self.store.cached_activation_dataset is None else self.store.dtype
        own = torch.empty((0, self.store.d_in), dtype=dtype, device=self.store.device)
        n_batches = 0
        with suppress(StopIteration):
            for turn in range(n_ranks()):
                if turn == rank():
                    own = self.store.get_filtered_llm_batch(raise_on_epoch_end=True)
                else:
                    self.skip()
                n_batches += 1
        self._has_ended = n_batches < n_ranks()
        sizes = row_counts(len(own))
        return list(rows_of_all(own, sizes).split(sizes))[:n_batches]
