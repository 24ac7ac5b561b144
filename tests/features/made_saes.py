"""Small SAEs of every architecture, and steps of a trainer with them."""

from __future__ import annotations

import pytest
import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput

from sae_lens_contrastive.features.surgery import FEATURE_AXES, feature_parameters, zero_gradient

SIZE = 16  # d_in and d_sae alike, so that a wrong axis shows
FEATURES = torch.tensor([2, 3, 11])
OTHERS = torch.tensor([i for i in range(SIZE) if i not in FEATURES])

ARCHITECTURES = {
    "standard": lambda **kw: StandardTrainingSAE(StandardTrainingSAEConfig(l1_coefficient=0.1, **kw)),
    "topk": lambda **kw: TopKTrainingSAE(TopKTrainingSAEConfig(k=4, **kw)),
    "topk, not rescaled": lambda **kw: TopKTrainingSAE(
        TopKTrainingSAEConfig(k=4, rescale_acts_by_decoder_norm=False, **kw)
    ),
    "batchtopk": lambda **kw: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=4, **kw)),
    "jumprelu": lambda **kw: JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(jumprelu_init_threshold=0.02, l0_coefficient=0.01, **kw)
    ),
    "matryoshka": lambda **kw: MatryoshkaBatchTopKTrainingSAE(
        MatryoshkaBatchTopKTrainingSAEConfig(k=4, matryoshka_widths=[8, SIZE], **kw)
    ),
}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def trained(architecture, steps=5, **kwargs):
    """An SAE with unlike decoder norms and biases, after some steps of Adam."""
    torch.manual_seed(0)
    sae = ARCHITECTURES[architecture](d_in=SIZE, d_sae=SIZE, **kwargs)
    with torch.no_grad():
        sae.W_dec *= 1 + 2 * torch.rand(SIZE, 1)
        sae.b_enc += 0.05
        sae.b_dec += 0.3 * torch.randn(SIZE)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    for seed in range(steps):
        step(sae, optimizer, batch(seed))
    return sae, optimizer


def batch(seed=0, n_tokens=64):
    return torch.randn(n_tokens, SIZE, generator=torch.Generator().manual_seed(seed))


def forward(sae, x, dead=None):
    coefficients = dict.fromkeys(sae.get_coefficients(), 0.1)
    return sae.training_forward_pass(TrainStepInput(x, coefficients, dead, n_training_steps=0, is_logging_step=False))


def step(sae, optimizer, x, dead=None, pruned=None):
    output = forward(sae, x, dead)
    output.loss.backward()
    if pruned is not None:
        for parameter, axis in feature_parameters(sae).values():
            zero_gradient(parameter, axis, pruned)
    optimizer.step()
    optimizer.zero_grad()
    return output


def slices(parameter, name, features=FEATURES):
    return parameter.index_select(FEATURE_AXES[name], features)


def mask(features=FEATURES):
    return torch.zeros(SIZE, dtype=torch.bool).index_fill(0, features, True)
