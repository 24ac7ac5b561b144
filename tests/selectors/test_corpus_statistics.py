import pytest
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import editing
from sae_lens_contrastive.selectors import corpus_statistics

# Features read x_0, x_1 and -x_0; what they write is told apart by the gradients below.
RESIDUALS = torch.tensor([[1.0, 1.0], [2.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
GRADIENTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-2.0, 0.0], [4.0, 2.0]])


@pytest.fixture
def sae():
    sae = StandardSAE(StandardSAEConfig(d_in=2, d_sae=3))
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 1.0]]))
        sae.b_enc.zero_()
    return sae


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_statistics_are_means_over_tokens_whatever_the_batch(sae, batch):
    found = corpus_statistics(sae, RESIDUALS, GRADIENTS, batch=batch)
    assert found.n_tokens == 4
    assert found.n_fired.tolist() == [3, 1, 1]
    assert found.rate.tolist() == [0.75, 0.25, 0.25]
    assert found.mean.tolist() == [1.0, 0.25, 0.25]
    assert found.mean_square.tolist() == [1.5, 0.25, 0.25]
    # Feature 0: (1 * 1 + 2 * 0 + 1 * -2) / 4; feature 1: 1 * 0; feature 2: 1 * (0.5 * 4 + 1 * 2) / 4.
    assert found.attribution is not None
    assert found.attribution.tolist() == [-0.25, 0.0, 1.0]


def test_without_gradients_there_is_no_attribution(sae):
    assert corpus_statistics(sae, RESIDUALS.bfloat16()).attribution is None
    assert corpus_statistics(sae, RESIDUALS.bfloat16()).mean.tolist() == [1.0, 0.25, 0.25]


def test_a_corpus_without_tokens_is_refused(sae):
    with pytest.raises(UserError, match="no tokens to take statistics of"):
        corpus_statistics(sae, RESIDUALS[:0])


def test_attribution_is_what_the_loss_gains_by_a_feature():
    """For a loss linear in the residual stream, that is what zeroing the feature takes away."""
    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=6, d_sae=20, k=4, rescale_acts_by_decoder_norm=True))
    residuals, gradients = torch.randn(50, 6), torch.randn(50, 6)
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.5, 3.0, 20)[:, None])  # row norms that count if they are not divided out
        acts = sae.encode(residuals)
        expected = []
        for feature in range(20):
            without = acts.clone()
            without[:, feature] = 0
            removed = sae.decode(acts) - sae.decode(without)
            expected.append((removed * gradients).sum() / 50)
    found = corpus_statistics(sae, residuals, gradients).attribution
    assert found is not None
    torch.testing.assert_close(found.float(), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert (found != 0).sum() > 10


def test_a_wide_dictionary_is_encoded_in_small_batches(sae, monkeypatch):
    expected = corpus_statistics(sae, RESIDUALS, GRADIENTS)
    seen = []
    encode = sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: seen.append(len(x)) or encode(x))
    monkeypatch.setattr(editing, "_MAX_ACTIVATIONS", 8)
    found = corpus_statistics(sae, RESIDUALS, GRADIENTS)
    assert seen == [2, 2]  # 2 tokens of 3 features; 3 tokens would be 9 activations
    assert torch.equal(found.mean_square, expected.mean_square)
    monkeypatch.setattr(editing, "_MAX_ACTIVATIONS", 2)
    corpus_statistics(sae, RESIDUALS)
    assert seen[2:] == [1, 1, 1, 1]
