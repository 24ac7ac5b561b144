"""Coverage during training: silent reserved features begin where no reserved feature fires."""

import torch
from made_training import Loop
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig

from sae_lens_contrastive.features.coverage import CoverageOptions
from sae_lens_contrastive.losses import FORGET, RETAIN
from sae_lens_contrastive.training.parts.coverage import CoveragePart

D_IN, D_SAE = 8, 6
DOMAINS = torch.tensor([FORGET] * 16 + [RETAIN] * 16)


def tokens(seed):
    """Half of the forget tokens lie along axis 0, half along axis 1, the others at both ends of axis 2."""
    x = 0.05 * torch.randn(32, D_IN, generator=torch.Generator().manual_seed(seed))
    x[:8, 0] += 3
    x[8:16, 1] += 3
    x[16:24, 2] += 3
    x[24:, 2] -= 3
    return x


def loop(domains=DOMAINS, **options):
    """Features 0 and 1 are reserved; 0 fires along axis 0, 1 and 5 never fire."""
    torch.manual_seed(0)
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, l1_coefficient=0.0))
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.W_enc[0, 0] = sae.W_enc[2, 2] = 1.0
        sae.b_enc.fill_(-1.0)
    part = CoveragePart(CoverageOptions(**{"every_n_steps": 4, **options}), n_steps=16)
    made = Loop(sae, [part], domains, lr=1e-6)
    made.features.reserved[:2] = True
    return made


def fires(sae, x):
    return sae.encode(x)[:, :2] > 0


def test_a_silent_reserved_feature_begins_on_uncovered_forget_tokens_alone():
    made = loop()
    for seed in range(4):
        made.step(tokens(seed))
    assert made.parts[0].records == [{"step": 3, "n_started": 1, "forget_tokens_covered": 0.5}]
    first, second = fires(made.sae, tokens(9)).T
    assert first.tolist() == [True] * 8 + [False] * 24
    assert second.tolist() == [False] * 8 + [True] * 8 + [False] * 16
    # Feature 5 is as silent, but not reserved.
    assert made.sae.W_enc[:, 5].abs().max() < 1e-4
    for seed in range(4, 8):
        made.step(tokens(seed))
    assert made.parts[0].records[-1] == {"step": 7, "n_started": 0, "forget_tokens_covered": 1.0}


def test_nothing_begins_late_or_without_labels():
    late, unlabelled = loop(until=0.2), loop(domains=None)
    for made in (late, unlabelled):
        for seed in range(8):
            made.step(tokens(seed))
        assert made.parts[0].records == []
        assert not fires(made.sae, tokens(9))[:, 1].any()
