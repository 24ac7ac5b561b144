import pytest
from drawn import column, legend, points, visible
from made_results import PRUNING, REINITIALISATION, importance, run

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.importance import draw_importance


def _band(axes, label):
    (found,) = [band for band in axes.collections if band.get_label() == label]
    values = found.get_paths()[0].vertices[:, 1]
    return values.min(), values.max()


def test_quantiles_are_bands_and_counts_are_lines():
    runs = [run("a", importance=importance(), pruning=PRUNING, reinitialisation=REINITIALISATION), run("plain")]
    figure = draw_importance(SavedResults(runs=runs))
    assert [axes.get_title() for axes in visible(figure) if axes.get_title()] == ["a"]
    distribution, counts = column(figure, "a", 2)
    assert _band(distribution, "10th to 90th percentile of importance") == (0, pytest.approx(0.1))
    assert _band(distribution, "25th to 75th percentile of importance") == (pytest.approx(0.001), pytest.approx(0.05))
    assert points(distribution, "median importance") == [(step, 0.01) for step in (49, 99, 149, 199)]
    assert points(distribution, "99th percentile of importance")[0] == (49, 0.6)
    assert points(counts, "below the importance threshold") == [(step, 30) for step in (49, 99, 149, 199)]
    assert points(counts, "pruned") == [(49, 0), (99, 8)]
    # Where nothing was reinitialised or came alive, nothing is marked.
    assert points(counts, "reinitialised") == [(199, 8), (299, 2)]
    assert points(counts, "alive again of those before") == [(299, 5)]
    assert counts.get_yscale() == "symlog"
    # A line at 0 is seen above the axis.
    assert -1 < counts.get_ylim()[0] < 0


def test_quantiles_and_counts_are_means_over_seeds():
    runs = [run("a", seed, importance=importance(scale=1 + seed, n_below_threshold=10 * seed)) for seed in (0, 1)]
    figure = draw_importance(SavedResults(runs=runs))
    distribution, counts = column(figure, "a", 2)
    assert points(distribution, "median importance")[0] == (49, pytest.approx(0.015))
    assert _band(distribution, "25th to 75th percentile of importance")[1] == pytest.approx(0.075)
    assert points(counts, "below the importance threshold")[0] == (49, 5)
    assert legend(figure)[-1] == "thin: one seed of 2"


def test_reinitialisation_alone_is_drawn():
    figure = draw_importance(SavedResults(runs=[run("a", reinitialisation=REINITIALISATION)]))
    assert points(column(figure, "a", 2)[1], "reinitialised") == [(199, 8), (299, 2)]


def test_features_that_have_no_importance_yet_are_drawn():
    results = SavedResults(runs=[run("a", importance=importance(scale=0.0, n_below_threshold=0))])
    assert draw_importance(results) is not None


def test_without_importance_and_surgery_nothing_is_drawn():
    assert draw_importance(SavedResults(runs=[run("a")])) is None
