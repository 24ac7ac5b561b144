import numpy as np
import pytest
from drawn import column, legend, points, titles, visible
from made_results import grouping, run

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.groups import draw_clusters, draw_correlation_history

STEPS = [99, 199, 299, 399]


def test_correlations_their_threshold_and_the_groups_it_makes():
    results = SavedResults(runs=[run("plain"), run("grouped", grouping=grouping())])
    figure = draw_correlation_history(results)
    assert [axes.get_title() for axes in visible(figure) if axes.get_title()] == ["grouped"]
    correlations, counts = column(figure, "grouped", 2)
    for percentile, value in ((50, 0.02), (75, 0.05), (85, 0.1), (95, 0.2), (99, 0.5)):
        assert points(correlations, f"{percentile}th percentile of |C|") == [(step, value) for step in STEPS]
    assert points(correlations, "threshold τ") == [(step, 0.2) for step in STEPS]
    assert points(counts, "groups") == [(step, 3) for step in STEPS]
    assert points(counts, "features in groups") == [(step, 12) for step in STEPS]
    assert counts.get_yscale() == "log"
    assert len(legend(figure)) == 8


def test_lines_are_means_over_the_seeds():
    runs = [run("a", seed, grouping=grouping(threshold=0.1 + 0.2 * seed, n_groups=4 * seed)) for seed in (0, 1)]
    figure = draw_correlation_history(SavedResults(runs=runs))
    correlations, counts = column(figure, "a", 2)
    assert points(correlations, "threshold τ") == [(step, pytest.approx(0.2)) for step in STEPS]
    assert points(counts, "groups") == [(step, 2) for step in STEPS]
    # One seed has no groups: the scale goes down to 0.
    assert counts.get_ylim()[0] < 0
    assert legend(figure)[-1] == "thin: one seed of 2"


def test_sizes_are_stacked_and_the_groups_past_the_recorded_ones_lie_on_top():
    (sizes, _changes, _agreement) = column(draw_clusters(SavedResults(runs=[run("a", grouping=grouping())])), "a", 3)
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in sizes.collections]
    assert tops == [6, 9, 11, 12]


def test_what_became_of_the_groups_is_drawn_from_the_second_grouping_on():
    figure = draw_clusters(SavedResults(runs=[run("a", grouping=grouping())]))
    _sizes, changes, agreement = column(figure, "a", 3)
    for name, value in (("kept", 2), ("split", 1), ("merged", 0), ("born", 1), ("died", 4)):
        assert points(changes, name) == [(step, value) for step in STEPS[1:]]
    (rand,) = agreement.get_lines()
    np.testing.assert_allclose(rand.get_xydata(), [(199, 0.1), (299, 0.2), (399, 0.3)])
    assert legend(figure) == [
        *("kept", "split", "merged", "born", "died"),
        *("one group each, the largest at the bottom", "groups past the 3 largest"),
    ]


def test_a_single_grouping_and_one_without_groups_are_drawn():
    for records in (grouping(1), grouping(2, sizes=(), n_grouped=0, n_groups=0)):
        results = SavedResults(runs=[run("a", grouping=records)])
        assert "groups past" not in " ".join(legend(draw_clusters(results))) or records[0]["sizes"]
        assert draw_correlation_history(results) is not None


def test_many_variants_and_settings_wrap_into_bands_of_even_width():
    runs = [run(f"run{i}", setting=setting, grouping=grouping()) for setting in ("wide", "narrow") for i in range(7)]
    figure = draw_clusters(SavedResults(runs=runs))
    assert titles(figure) == ["wide", "narrow"]
    shown = [axes.get_title() for axes in visible(figure) if axes.get_title()]
    assert shown == [f"run{i}" for i in range(7)] * 2
    # Two bands of four and three variants in each setting, three panels for each variant.
    assert [len(band.axes) for block in figure.subfigs for band in block.subfigs] == [12, 12, 12, 12]
    assert len(visible(figure)) == 2 * 7 * 3


def test_without_groups_nothing_is_drawn():
    assert draw_correlation_history(SavedResults(runs=[run("a")])) is None
    assert draw_clusters(SavedResults(runs=[run("a")])) is None
