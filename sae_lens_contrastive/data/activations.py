"""Activation streams: a fixed mix of domains in every batch, and activations collected once and reused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from sae_lens.training.activations_store import ActivationsStore
from safetensors import safe_open
from torch import Tensor
from tqdm.auto import tqdm
from typing_extensions import override

from sae_lens_contrastive.data.model_batches import ModelBatches, corpus_too_small
from sae_lens_contrastive.data.streams import ResumableStream, generator_at, under_prefix, with_prefix
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.kept_tensors import keep_tensors
from sae_lens_contrastive.losses import FORGET, GENERAL, RETAIN

_TENSOR = "activations"


def domain_sizes(batch_size: int, forget_share: float, retain_share: float) -> dict[int, int]:
    """Tokens of each domain in a batch: the shares rounded, the rest general.

    Raises `ConfigError` unless every domain with a share gets a token and something is left for general text.
    """
    sizes = {FORGET: round(batch_size * forget_share), RETAIN: round(batch_size * retain_share)}
    sizes = {GENERAL: batch_size - sum(sizes.values()), **sizes}
    if min(sizes.values()) < 1:
        raise ConfigError(
            f"forget_share {forget_share} and retain_share {retain_share} leave a domain without tokens in a batch of "
            f"{batch_size}. Both must be above 0 and their sum below 1."
        )
    return sizes


class DomainMix(ResumableStream[Tensor]):
    """Batches of fixed composition: general, forget and retain tokens in that order, from one stream each.

    The composition does not change from batch to batch, so the labels are known without travelling with the batch,
    and SAELens' own trainer, scaler and prefetching take the stream as it is.
    """

    def __init__(self, streams: Mapping[int, ResumableStream[Tensor]]) -> None:
        self.streams = dict(streams)

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        return torch.cat([next(self.streams[domain]) for domain in (GENERAL, FORGET, RETAIN)])

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """States of the three streams, each under the number of its domain."""
        states = (with_prefix(str(domain), stream.state_dict()) for domain, stream in self.streams.items())
        return {name: tensor for state in states for name, tensor in state.items()}

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue the three streams from their states."""
        for domain, stream in self.streams.items():
            stream.load_state_dict(under_prefix(str(domain), state))

    @override
    def close(self) -> None:
        """Close the three streams."""
        for stream in self.streams.values():
            stream.close()


def domain_labels(sizes: Mapping[int, int]) -> Int[Tensor, " batch"]:
    """Domain of every token of a `DomainMix` batch."""
    return torch.cat([torch.full((sizes[domain],), domain) for domain in (GENERAL, FORGET, RETAIN)])


def collect_activations(store: ActivationsStore, path: Path, max_tokens: int, label: str, fingerprint: str) -> Path:
    """Run the model over the store's dataset once and keep its activations in a safetensors file.

    Collection ends at the end of the dataset or at `max_tokens`. A file with the same fingerprint is reused, also
    one that another process is about to write. Raises `UserError` if the dataset is too small for one batch of the
    model.
    """
    return keep_tensors(path, fingerprint, lambda: {_TENSOR: _collected(store, max_tokens, label)})


def _collected(store: ActivationsStore, max_tokens: int, label: str) -> Float[Tensor, "n d_in"]:
    parts: list[Tensor] = []
    batches, n_tokens = ModelBatches(store), 0
    with tqdm(total=max_tokens, desc=f"Activations of {label} text", unit="token", unit_scale=True) as bar:
        while n_tokens < max_tokens:
            try:
                activations = batches.read()
            except StopIteration:
                break
            parts.append(activations[: max_tokens - n_tokens].to(store.dtype).cpu())
            n_tokens += len(parts[-1])
            bar.update(len(parts[-1]))
    if not parts:
        raise corpus_too_small(store, label)
    return torch.cat(parts)


class CachedActivations(ResumableStream[Tensor]):
    """Endless batches from collected activations, reshuffled every epoch from the seed alone.

    The position (`n_batches`) is all the state there is.
    """

    def __init__(self, path: Path, batch_size: int, seed: int, device: str = "cpu") -> None:
        with safe_open(path, framework="pt") as file:
            self.activations: Tensor = file.get_tensor(_TENSOR)
        if len(self.activations) < batch_size:
            raise UserError(
                f"{path} holds {len(self.activations)} tokens, fewer than the {batch_size} that a batch takes. Give "
                "more text, lower train_batch_size_tokens or lower the domain's share."
            )
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.n_batches = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def n_tokens(self) -> int:
        """Tokens in one epoch."""
        return len(self.activations)

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        per_epoch = len(self.activations) // self.batch_size
        epoch, place = divmod(self.n_batches, per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self.activations), generator=generator_at(self.seed, epoch))
            self._epoch, self._order = epoch, order
        rows = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        self.n_batches += 1
        return self.activations[rows].to(self.device)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The number of batches served."""
        return {"n_batches": torch.tensor(self.n_batches)}

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue after as many batches as had been served."""
        self.n_batches = int(state["n_batches"])
