import math

import pytest

from sae_lens_contrastive.report.seeds import Spread, causes_of_zero, spread_by_step, thinned


def test_mean_and_interval_over_seeds():
    spread = Spread((0.2, 0.5, 0.8))
    # s = 0.3, and the 97.5th percentile of Student's t with 2 degrees of freedom is 4.3027.
    assert spread.half_width == pytest.approx(4.3027 * 0.3 / math.sqrt(3), rel=1e-4)
    assert spread.interval == pytest.approx((0.5 - 0.7452, 0.5 + 0.7452), abs=1e-4)
    assert spread.text() == "0.500 ± 0.745"


def test_one_seed_has_no_interval():
    assert Spread((0.25,)).half_width == math.inf
    assert Spread((0.25,)).text("{:.1f}") == "0.2"


def test_a_step_is_combined_over_the_seeds_that_have_it():
    spreads = spread_by_step([{10: 1.0, 5: 3.0}, {10: 2.0, 15: 8.0}])
    assert {step: spread.values for step, spread in spreads.items()} == {5: (3.0,), 10: (1.0, 2.0), 15: (8.0,)}
    assert list(spreads) == [5, 10, 15]


def test_a_long_series_becomes_means_of_successive_points():
    series = {step: float(step) for step in (1, 2, 3, 4, 5, 6, 7)}
    assert thinned(series, most=3) == {3: 2.0, 6: 5.0, 7: 7.0}
    assert thinned(series, most=7) == series
    assert thinned({}, most=7) == {}


def test_zeros_that_are_left_out_move_no_point():
    first = thinned({1: 0.0, 2: 0.0, 3: 0.0, 4: 1.0, 5: 1.0, 6: 1.0}, most=3, keep_zeros=False)
    second = thinned({1: 0.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 2.0, 6: 2.0}, most=3, keep_zeros=False)
    assert first == {4: 1.0, 6: 1.0}
    assert second == {2: 2.0, 4: 2.0, 6: 2.0}


@pytest.mark.parametrize(
    ("causes", "text"),
    [
        ([None, None], ""),
        (["retain_gate"], "retain_gate"),
        (["retain_gate", "retain_gate"], "retain_gate"),
        (["retain_gate", None, "retain_gate"], "retain_gate (2 of 3 seeds)"),
        (["no_effect", "retain_gate"], "no_effect (1 of 2 seeds), retain_gate (1 of 2 seeds)"),
    ],
)
def test_the_causes_of_zeros_are_counted_unless_all_agree(causes, text):
    assert causes_of_zero(causes) == text
