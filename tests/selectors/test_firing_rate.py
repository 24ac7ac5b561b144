import numpy as np
import pytest
import torch
from made_evidence import evidence, statistics

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.selectors import Evidence, FiringRate


def ranking(forget, retain, threshold, n_tokens=1000):
    both = ({"n_fired": counts, "n_tokens": n_tokens} for counts in (forget, retain))
    return FiringRate(threshold)(evidence(*both)).tolist()


def test_drops_by_retain_rate_and_sorts_by_forget_rate():
    # 2 and 5 fire too much on retain text, 4 never fires on forget text; of the tie 1 and 3 the later comes first.
    forget, retain = [500, 200, 900, 200, 0, 700], [0, 10, 300, 0, 0, 20]
    assert ranking(forget, retain, 0.02) == [0, 3, 1]
    assert ranking(forget, retain, 1.0) == [2, 5, 0, 3, 1]


def test_a_rate_at_the_threshold_is_dropped():
    assert ranking([500, 200, 300], [0, 10, 9], 0.01) == [0, 2]


def test_nothing_survives():
    assert ranking([5, 0], [1000, 0], 1.0) == []


def test_rates_have_six_decimals():
    # 1 token of 3 million rounds to 0.000000, 2 to 0.000001; 29,999 on retain text are 0.009999667, 29,998 0.009999.
    assert ranking([1, 2, 9, 9], [0, 0, 29_999, 29_998], 0.01, n_tokens=3_000_000) == [3, 1]
    # 299 and 298 of 3 million tie as 0.0001 and 0.000099; 298 and 297 as 0.000099.
    assert ranking([298, 297, 299], [0, 0, 0], 0.01, n_tokens=3_000_000) == [2, 1, 0]


def test_rates_are_divided_in_32_bits():
    # 22,504 of 640,000 are 0.0351625, in 32 bits a little more; 21,720 are 0.0339375, in 32 bits a little less.
    assert ranking([9], [22_504], 0.035163, n_tokens=640_000) == []
    assert ranking([9], [21_720], 0.033938, n_tokens=640_000) == [0]


@pytest.mark.parametrize("seed", range(3))
def test_many_ties_fall_as_numpy_sorts_rates_read_from_a_file(seed, tmp_path):
    generator = torch.Generator().manual_seed(seed)
    n_tokens = 92_821
    forget, retain = (
        statistics(torch.randint(0, high, (5000,), generator=generator).tolist(), n_tokens=n_tokens)
        for high in (60, 2000)
    )
    read = []
    for i, side in enumerate((forget, retain)):
        np.savetxt(tmp_path / f"{i}.txt", (side.n_fired.to(torch.float32) / n_tokens).numpy(), fmt="%f")
        read.append(np.loadtxt(tmp_path / f"{i}.txt"))
    kept = np.where(read[1] < 0.01, read[0], 0.0)
    expected = [int(i) for i in np.argsort(kept)[::-1] if kept[i] > 0]
    assert (
        FiringRate(0.01)(Evidence(forget, retain, torch.zeros(len(forget.n_fired), dtype=torch.bool))).tolist()
        == expected
    )
    assert 1000 < len(expected) < 5000


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.5, float("nan")])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ConfigError, match=r"retain_threshold is .* in \(0, 1\], such as 0.01"):
        FiringRate(threshold)
