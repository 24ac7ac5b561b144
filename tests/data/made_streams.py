"""Texts, stores and streams that the tests of this folder share."""

from itertools import islice
from types import SimpleNamespace

import torch
from safetensors.torch import load, save

from sae_lens_contrastive.data.streams import ResumableStream

HOOK = "blocks.2.hook_resid_post"
TEXTS = [f"text {i} speaks of {'tea' if i % 2 else 'coal'} and {i * i * 7919} others" for i in range(12)]


class NumberedStore(SimpleNamespace):
    """Stands in for SAELens' store: an epoch has batches of these sizes, tokens are numbered through all epochs."""

    def __init__(self, sizes, fraction=0.5):
        super().__init__(
            store_batch_size_prompts=2,
            context_size=8,
            training_context_size=8,
            n_batches_in_buffer=3,
            activations_mixing_fraction=fraction,
            d_in=1,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        self.sizes, self.place, self.n_tokens = sizes, 0, 0

    def get_filtered_llm_batch(self, raise_on_epoch_end=False):
        if self.place == len(self.sizes):
            self.place = 0
            raise StopIteration
        tokens = torch.arange(self.n_tokens, self.n_tokens + self.sizes[self.place], dtype=torch.float32)[:, None]
        self.place, self.n_tokens = self.place + 1, self.n_tokens + len(tokens)
        return tokens

    def batches_of_all_epochs(self):
        while True:
            try:
                yield self.get_filtered_llm_batch()
            except StopIteration:
                continue


class Numbers(ResumableStream):
    """Batches of two equal numbers that count up; fails at the number `fails_at`."""

    def __init__(self, fails_at=None):
        self.n, self.fails_at = 0, fails_at

    def __next__(self):
        if self.n == self.fails_at:
            raise RuntimeError("the model broke")
        self.n += 1
        return torch.full((2, 1), self.n - 1.0)

    def state_dict(self):
        return {"n": torch.tensor(self.n)}

    def load_state_dict(self, state):
        self.n = int(state["n"])


def take(stream, n):
    return [batch.clone() for batch in islice(stream, n)]


def same(first, second):
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def through_a_file(state):
    """The state as a checkpoint keeps it."""
    return load(save(state))
