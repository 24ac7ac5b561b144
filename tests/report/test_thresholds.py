import pytest
from drawn import bars, dots, legend, panel, texts
from made_results import history, row, run

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.thresholds import draw_feature_thresholds

JOINING = "Correlation that joins features"
SETTING = {"selector": "firing_rate", "selector_options": {"retain_threshold": 0.01}}
SURVIVING = "Forget features that a selector lets through"


def test_a_bar_for_each_variant_and_threshold():
    runs = [
        run("plain"),
        *(run("grouped", seed, records=history(threshold=0.1 + 0.2 * seed)) for seed in (0, 1)),
    ]
    rows = [row("plain", 0.5, 0.5), row("grouped", 0.5, 0.5), row("only evaluated", 0.5, 0.5)]
    figure = draw_feature_thresholds(SavedResults(rows, runs))
    joining, surviving = panel(figure, JOINING), panel(figure, SURVIVING)
    assert [bar.get_width() for bar in joining.containers[0]] == pytest.approx([0.2])
    assert dots(joining) == [pytest.approx([0.1, 0.3])]
    assert texts(joining) == ["0.200  7 groups", " no groups"]
    assert joining.texts[1].get_position() == (0, 0)
    assert [label.get_text() for label in joining.get_yticklabels()] == ["plain", "grouped", "only evaluated"]
    assert bars(surviving, "retain threshold 0.001") == [3, 3, 3]
    assert bars(surviving, "retain threshold 0.01") == [41, 41, 41]
    assert legend(figure) == [
        *("retain threshold 0.001", "retain threshold 0.01", "one seed", "95 % interval of the mean (2 seeds)"),
    ]


def test_survivors_are_averaged_over_seeds():
    rows = [row("a", 0.5, 0.5, seed=seed, frontier=[{**SETTING, "n_surviving": 10 + 20 * seed}]) for seed in (0, 1)]
    (axes,) = draw_feature_thresholds(SavedResults(rows)).axes
    assert bars(axes, "retain threshold 0.01") == [20]
    assert dots(axes) == [[10, 30]]


def test_a_panel_without_data_is_left_out():
    without = [row("a", 0.0, 0.0, cause="unknown_questions", frontier=[])]
    assert draw_feature_thresholds(SavedResults(without, [run("a")])) is None
    only_groups = draw_feature_thresholds(SavedResults(without, [run("a", records=history(threshold=0.3))]))
    assert [axes.get_title() for axes in only_groups.axes] == [JOINING]
