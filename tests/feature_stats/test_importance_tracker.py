"""Importance: the formula by hand, its first value, merging, options."""

import pytest
import torch

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.feature_stats import ImportanceOptions, ImportanceTracker

ACTIVATION = torch.tensor([4.0, 2.0, 0.0, 1.0])
GRADIENT = torch.tensor([0.0, 0.1, 0.05, 0.0])
INFORMATION = torch.tensor([0.0, 0.3, 0.0, 0.6])
ALL_THREE = ImportanceOptions(activation_weight=0.35, gradient_weight=0.5, mutual_information_weight=0.15)


def tracker(options=ALL_THREE):
    return ImportanceTracker(4, options)


def measured(one, *statistics):
    one.update(*statistics)
    one.step()
    return one.compute()


def test_the_first_measurement_is_the_weighted_sum_of_scaled_statistics():
    found = measured(tracker(), ACTIVATION, GRADIENT, INFORMATION)
    # 0.35 * [1, .5, 0, .25] + 0.5 * [0, 1, .5, 0] + 0.15 * [0, .5, 0, 1]
    assert found.tolist() == pytest.approx([0.35, 0.75, 0.25, 0.2375])


def test_later_measurements_enter_with_one_minus_memory():
    one = tracker(ImportanceOptions(memory=0.9))
    assert one.compute() is None
    assert measured(one, ACTIVATION, GRADIENT).tolist() == pytest.approx([0.4, 0.8, 0.3, 0.1])
    later = measured(one, ACTIVATION.flip(0), GRADIENT)
    # 0.9 * I + 0.1 * (0.4 * [.25, 0, .5, 1] + 0.6 * [0, 1, .5, 0])
    assert later.tolist() == pytest.approx([0.37, 0.78, 0.32, 0.13])


def test_a_statistic_that_is_zero_everywhere_adds_nothing():
    found = measured(tracker(), ACTIVATION, torch.zeros(4), torch.zeros(4))
    assert found.tolist() == pytest.approx([0.35, 0.175, 0.0, 0.0875])


def test_the_scale_of_a_statistic_does_not_matter():
    small = measured(tracker(), 1e-12 * ACTIVATION, 1e-30 * GRADIENT, INFORMATION)
    torch.testing.assert_close(small, measured(tracker(), ACTIVATION, GRADIENT, INFORMATION))


def test_two_trackers_merge_into_one_that_collected_both():
    both, left, right = tracker(), tracker(), tracker()
    for one in (both, left, right):
        measured(one, ACTIVATION, GRADIENT, INFORMATION)
    both.update(GRADIENT, ACTIVATION, INFORMATION)
    both.update(INFORMATION, GRADIENT, ACTIVATION)
    left.update(GRADIENT, ACTIVATION, INFORMATION)
    right.update(INFORMATION, GRADIENT, ACTIVATION)
    left.merge(right)
    both.step()
    left.step()
    assert torch.equal(left.compute(), both.compute())
    # Sums [0, .4, .05, .6], [4, 2.1, .05, 1] and [4, 2.3, 0, 1.6], scaled, enter with 0.1.
    assert left.compute().tolist() == pytest.approx([0.38, 0.7332083, 0.2285417, 0.26725])
    with pytest.raises(ConfigError, match="d_sae 3"):
        left.merge(ImportanceTracker(3, ALL_THREE))


def test_a_step_without_updates_changes_nothing():
    one = tracker()
    one.step()
    assert one.compute() is None
    before = measured(one, ACTIVATION, GRADIENT, INFORMATION)
    one.step()
    assert torch.equal(one.compute(), before)


def test_importance_from_outside_is_what_the_next_measurement_starts_from():
    one = tracker(ImportanceOptions(memory=0.5))
    measured(one, ACTIVATION, GRADIENT)
    one.resume_from(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert measured(one, ACTIVATION, GRADIENT).tolist() == pytest.approx([0.7, 0.9, 0.65, 0.05])


def test_a_statistic_with_a_weight_must_be_given():
    with pytest.raises(ConfigError, match="mutual_information_weight is above 0"):
        tracker().update(ACTIVATION, GRADIENT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation_weight": 0.5}, "activation_weight 0.5, gradient_weight 0.6, mutual_information_weight 0.0.* 1.1"),
        ({"activation_weight": -0.4, "gradient_weight": 1.4}, "0 or more and their sum 1"),
        ({"memory": 1.0}, r"memory is 1.0; it must be in \[0, 1\)"),
        ({"every_n_steps": 0}, "every_n_steps is 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ImportanceOptions(**options)
