"""Streams of activations whose state can be saved, so that a resumed run sees the batches it would have seen."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.training.prefetch import PrefetchingIterator
from torch import Tensor
from tqdm.auto import tqdm
from typing_extensions import override

from sae_lens_contrastive.data.model_batches import ModelBatches, corpus_too_small
from sae_lens_contrastive.errors import ConfigError, UserError

T = TypeVar("T")


class ResumableStream(Iterator[T], Generic[T]):
    """An endless stream of batches that continues bit for bit from a saved state."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the batches still to come depend on, beside what the stream was built from."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state_dict` was taken; the stream must be built as the saved one was, and be unread."""

    def close(self) -> None:
        """Stop what runs in the background."""


def with_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def under_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of the state that `with_prefix` named."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in state.items() if name.startswith(f"{prefix}.")}


def generator_at(seed: int, place: int) -> torch.Generator:
    """Random numbers of one place in a run, such as a step or an epoch: they depend on it and the seed alone."""
    # A seed may be a timestamp; torch takes 64 bits.
    return torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**64)


class StreamedActivations(ResumableStream[Tensor]):
    """Endless batches that the model makes when they are needed, mixed as SAELens' store mixes them.

    Texts, their filtering and the activations are the store's. They gather in a buffer of `n_batches_in_buffer`
    contexts, which is shuffled; the share `activations_mixing_fraction` stays for the next mix, the rest is served.
    Only the shuffling is not the store's: that draws from torch's global generator inside a Python generator, whose
    place cannot be saved. With the same seed both give the same batches.

    Raises `ConfigError` if the buffer cannot hold a batch, and `UserError` when the corpus, called by its `label`,
    turns out to be smaller than one batch of the model.
    """

    def __init__(self, store: ActivationsStore, batch_size: int, seed: int, label: str = "given") -> None:
        self.buffer_size = store.n_batches_in_buffer * store.training_context_size
        if self.buffer_size < batch_size:
            raise ConfigError(
                f"n_batches_in_buffer {store.n_batches_in_buffer} makes a buffer of {self.buffer_size} tokens "
                f"(contexts of {store.training_context_size}), fewer than the {batch_size} that a batch takes. Raise "
                "training.n_batches_in_buffer or lower train_batch_size_tokens."
            )
        self.store, self.batch_size, self.label = store, batch_size, label
        self._model_batches = ModelBatches(store)
        self.n_epochs = 0
        self.n_model_batches = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._buffer = torch.empty((0, store.d_in), dtype=store.dtype, device=store.device)
        self._n_to_serve = 0

    def __next__(self) -> Float[Tensor, "batch d_in"]:
        if self._n_to_serve == 0:
            self._mix()
        batch, self._buffer = self._buffer[: self.batch_size], self._buffer[self.batch_size :]
        self._n_to_serve -= self.batch_size
        return batch

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The buffer, its generator, and the batches of the model read since the corpus last began."""
        return {
            "buffer": self._buffer,
            "n_to_serve": torch.tensor(self._n_to_serve),
            "generator": self._generator.get_state(),
            "n_model_batches": torch.tensor(self.n_model_batches),
            "n_epochs": torch.tensor(self.n_epochs),
        }

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Skip the texts already read, without running the model, and take the buffer over.

        Raises `UserError` if the corpus ends before the saved place.
        """
        if self.n_epochs or self.n_model_batches:
            raise ValueError("The stream has been read. Load the state into a new one, on a new store.")
        self._skip(int(state["n_model_batches"]))
        self.n_epochs = int(state["n_epochs"])
        self._buffer = state["buffer"].to(self.store.device)
        self._n_to_serve = int(state["n_to_serve"])
        self._generator.set_state(state["generator"].cpu())

    def _mix(self) -> None:
        parts = [self._buffer, self._read()]
        while sum(len(part) for part in parts) < self.buffer_size:
            parts.append(self._read())
        buffer = torch.cat(parts)
        if self.store.activations_mixing_fraction > 0:
            buffer = buffer[torch.randperm(len(buffer), generator=self._generator).to(buffer.device)]
        n_beyond_kept = len(buffer) - int(self.buffer_size * self.store.activations_mixing_fraction)
        self._n_to_serve = max(1, n_beyond_kept // self.batch_size) * self.batch_size
        self._buffer = buffer

    def _read(self) -> Tensor:
        while True:
            try:
                activations = self._model_batches.read()
            except StopIteration:
                if self.n_model_batches == 0:
                    raise corpus_too_small(self.store, self.label) from None
                self.n_epochs, self.n_model_batches = self.n_epochs + 1, 0
            else:
                self.n_model_batches += 1
                return activations

    def _skip(self, n_model_batches: int) -> None:
        for n_done in tqdm(range(n_model_batches), desc=f"Skipping {self.label} text already read", leave=False):
            try:
                self._model_batches.skip()
            except StopIteration:
                raise UserError(
                    f"The {self.label} corpus ends after {n_done} batches of the model, but the saved run had read "
                    f"{n_model_batches} of them. Resume with the corpus it was started with, or start it anew."
                ) from None
        self.n_model_batches = n_model_batches


class PrefetchedStream(PrefetchingIterator[Tensor], ResumableStream[Tensor]):
    """A stream that SAELens' background thread keeps `prefetch` batches ahead.

    The thread starts with the first batch. `state_dict` stops it: batches made by then are part of the state and are
    served first, by this stream, which then starts the thread again, and by one that loads the state.
    """

    def __init__(self, stream: ResumableStream[Tensor], prefetch: int) -> None:
        # The host's constructor starts the thread, but a state may be loaded first.
        if prefetch < 1:
            raise ConfigError(f"prefetch is {prefetch}; it must be 1 or more batches.")
        self.stream, self.prefetch = stream, prefetch
        self._ready: deque[Tensor] = deque()
        self._running: _Stoppable | None = None
        self._open = True

    @override
    def __next__(self) -> Tensor:
        if not self._open:
            raise StopIteration
        # Not before: frequent saving would let the batches that are ready grow without bound.
        if self._running is None and len(self._ready) <= self.prefetch:
            self._running = _Stoppable(self.stream)
            super().__init__(self._running, self.prefetch)
        return self._ready.popleft() if self._ready else super().__next__()

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """State of the stream and the batches it is ahead; not to be called while `paused`."""
        if not self._open:
            raise ValueError("The stream is closed and its batches are gone. Save its state before.")
        self._stop()
        ahead = {"ahead": torch.stack(list(self._ready))} if self._ready else {}
        return ahead | with_prefix("stream", self.stream.state_dict())

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state of the stream and the batches it was ahead."""
        self._stop()
        self.stream.load_state_dict(under_prefix("stream", state))
        self._ready = deque(state["ahead"].unbind()) if "ahead" in state else deque()

    @contextmanager
    @override
    def paused(self) -> Iterator[None]:
        """Keep the thread from making batches; read none in this context, there may be none left."""
        with super().paused() if self._running else nullcontext():
            yield

    @override
    def close(self) -> None:
        """Stop the thread and drop what it made."""
        if self._running:
            super().close()
        self.stream.close()
        self._ready.clear()
        self._open = False

    def _stop(self) -> None:
        if self._running is None:
            return
        self._running.stopped = True
        with suppress(StopIteration):
            while True:
                self._ready.append(super().__next__())
        self._running = None


class _Stoppable(Iterator[Tensor]):
    """A source that can be told to end: the thread then hands over what it has, in order, and ends too."""

    def __init__(self, source: Iterator[Tensor]) -> None:
        self.source, self.stopped = source, False

    def __next__(self) -> Tensor:
        if self.stopped:
            raise StopIteration
        return next(self.source)


class HookStream(ResumableStream[dict[str, Tensor]]):
    """Batches under the name of their hook, as SAELens' `MultiSAETrainer` reads them."""

    def __init__(self, stream: ResumableStream[Tensor], hook_name: str) -> None:
        self.stream, self.hook_name = stream, hook_name

    def __next__(self) -> dict[str, Tensor]:
        return {self.hook_name: next(self.stream)}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """State of the stream."""
        return self.stream.state_dict()

    @override
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue the stream from its state."""
        self.stream.load_state_dict(state)

    @override
    def close(self) -> None:
        """Close the stream."""
        self.stream.close()
