import numpy as np
from drawn import legend, titles
from made_results import row

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.frontier import draw_frontier


def _points(axes, label):
    drawn = [collection.get_offsets() for collection in axes.collections if collection.get_label() == label]
    return np.concatenate(drawn)


def test_every_setting_is_a_point_and_the_chosen_one_is_ringed():
    rows = [row("a", 0.5, 0.5, accuracy=0.6), row("b", 0.4, 0.4, accuracy=0.7)]
    for each in rows:
        each["setting"] = each["frontier"][1]
    figure = draw_frontier(SavedResults(rows))
    (axes,) = figure.axes
    np.testing.assert_allclose(_points(axes, "a"), [(0.99, 0.6), (1.0, 0.6)] * 2)
    np.testing.assert_allclose(_points(axes, "b"), [(0.99, 0.7), (1.0, 0.7)] * 2)
    np.testing.assert_allclose(_points(axes, "chosen"), [(1.0, 0.6), (1.0, 0.7)])
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["retain gate, 0.99"].get_xdata()[0] == 0.99
    assert lines["chance"].get_ydata()[0] == 0.25
    assert legend(figure)[:2] == ["a", "b"]


def test_each_setting_of_a_study_has_a_block_and_rows_without_a_frontier_have_none():
    rows = [
        row("a", 0.5, 0.5, study_setting="wide"),
        row("a", 0.0, 0.0, study_setting="narrow", cause="unknown_questions", frontier=[]),
    ]
    assert titles(draw_frontier(SavedResults(rows))) == ["wide"]
    assert draw_frontier(SavedResults(rows[1:])) is None
