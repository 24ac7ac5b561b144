import warnings

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig


@pytest.fixture(scope="session")
def hooked_transformer():
    """A small random model of the class that TransformerLens 4 removes and SAELens still loads by default."""
    config = HookedTransformerConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=4, n_heads=3, d_vocab=128, act_fn="gelu", seed=0
    )
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", DeprecationWarning)
        return HookedTransformer(config).requires_grad_(False)
