"""A batch as loss terms see it, made of chosen activations."""

import torch

from sae_lens_contrastive.losses import LossContext


def make_context(acts, domains=None, groups=(), hidden_pre=None, W_dec=None, **others):
    acts = torch.as_tensor(acts, dtype=torch.float32)
    return LossContext(
        sae_in=torch.zeros(len(acts), 2),
        sae_out=torch.zeros(len(acts), 2),
        feature_acts=acts,
        hidden_pre=acts if hidden_pre is None else hidden_pre,
        W_dec=torch.zeros(acts.shape[1], 2) if W_dec is None else W_dec,
        domains=None if domains is None else torch.as_tensor(domains),
        groups=tuple(torch.as_tensor(group) for group in groups),
        **others,
    )
