"""A store of a few numbered batches, in place of a model and a corpus."""

import torch

from sae_lens_contrastive.data.model_batches import ModelBatches


class NumberedStore:
    """As the host's: a model in another dtype, its activations in float32."""

    d_in = 3
    device = "cpu"
    cached_activation_dataset = None

    def __init__(self, n_batches, dtype):
        self.n_batches, self.dtype, self.n_read = n_batches, dtype, 0

    def get_batch_tokens(self, **_options):
        if self.n_read == self.n_batches:
            self.n_read = 0
            raise StopIteration
        self.n_read += 1

    def get_filtered_llm_batch(self, **_options):
        self.get_batch_tokens()
        return torch.full((4, self.d_in), float(self.n_read))


def read_twice(n_batches, dtype):
    """First numbers of the batches of two epochs."""
    batches = ModelBatches(NumberedStore(n_batches, dtype))
    return [[float(batch[0, 0]) for batch in iter(lambda: _next(batches), None)] for _ in range(2)]


def _next(batches):
    try:
        return batches.read()
    except StopIteration:
        return None
