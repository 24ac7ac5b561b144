import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.features.selection import Selection, firing_rates, select_features

FORGET = torch.tensor([0.5, 0.2, 0.9, 0.2, 0.0, 0.7])
RETAIN = torch.tensor([0.00, 0.01, 0.30, 0.00, 0.00, 0.02])


def test_selection_drops_by_retain_rate_and_sorts_by_forget_rate_then_index():
    # 2 and 5 fire too much on retain text, 4 never fires on forget text; 1 and 3 tie.
    assert select_features(FORGET, RETAIN, 0.02, 10) == Selection(features=(0, 1, 3), n_surviving=3)


def test_a_rate_at_the_threshold_is_dropped():
    assert select_features(FORGET, RETAIN, 0.01, 10).features == (0, 3)


def test_fewer_features_are_the_first_of_more():
    assert select_features(FORGET, RETAIN, 0.5, 2) == Selection(features=(2, 5), n_surviving=5)


def test_nothing_survives():
    assert select_features(FORGET, torch.ones(6), 1.0, 3) == Selection(features=(), n_surviving=0)


def test_firing_rates_are_shares_of_tokens_whatever_the_batch():
    sae = StandardSAE(StandardSAEConfig(d_in=2, d_sae=3))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
        sae.b_enc.zero_()
    residuals = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.bfloat16)
    for batch in (1, 3, 100):
        assert firing_rates(sae, residuals, batch).tolist() == [0.75, 0.25, 0.25]
