import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.selectors import corpus_statistics
from sae_lens_contrastive.unlearning.ensemble import Ensemble


def test_an_ensemble_is_read_like_an_sae():
    sae = StandardSAE(StandardSAEConfig(d_in=2, d_sae=2))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(2))
        sae.W_dec.copy_(torch.eye(2))
        sae.b_enc.zero_()
    pair = Ensemble(["a", "b"], [sae, sae])
    found = corpus_statistics(pair, torch.tensor([[3.0, -1.0], [1.0, 2.0]]), torch.tensor([[1.0, 0.0], [1.0, -1.0]]))
    assert found.n_fired.tolist() == [2, 1, 2, 1]
    assert found.mean.tolist() == [2.0, 1.0, 2.0, 1.0]
    assert found.attribution is not None
    # One SAE alone gives 2 and -1; each of two members writes half as much.
    assert found.attribution.tolist() == [1.0, -0.5, 1.0, -0.5]
