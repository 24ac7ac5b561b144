"""Statistics written down by hand."""

import torch

from sae_lens_contrastive.selectors import CorpusStatistics, Evidence

N_TOKENS = 1000


def statistics(n_fired, mean=None, mean_square=None, attribution=None, n_tokens=N_TOKENS):
    """Statistics of a corpus; a mean that is not given is the firing rate."""
    fired = torch.tensor(n_fired)
    rate = fired.double() / n_tokens

    def given(values):
        return rate if values is None else torch.tensor(values, dtype=torch.float64)

    return CorpusStatistics(
        n_tokens=n_tokens,
        n_fired=fired,
        mean=given(mean),
        mean_square=given(mean_square),
        attribution=None if attribution is None else given(attribution),
    )


def evidence(forget, retain, n_reserved=0):
    """Evidence from the keyword arguments of `statistics` for both corpora; the first features are reserved."""
    sides = statistics(**forget), statistics(**retain)
    return Evidence(*sides, reserved=torch.arange(len(sides[0].n_fired)) < n_reserved)
