from drawn import points
from made_results import RELEARNING, row

from sae_lens_contrastive.report import SavedResults, measures_table
from sae_lens_contrastive.report.relearning import draw_relearning

MEASURES = {
    "random_baseline": {"mean_forget_accuracy": 0.98, "p_value": 1 / 21},
    "text_effects": {
        "forget": {"loss": 2.5, "edited_loss": 4.0, "kl": 1.25},
        "retain": {"loss": 3.0, "edited_loss": 3.01, "kl": 0.004},
    },
    "paraphrases": {"n_paraphrases": 40, "accuracy": 0.3},
    "relearning": RELEARNING,
}


def test_the_table_has_a_column_for_each_measure_that_was_taken():
    table = measures_table(
        [row("a", 0.5, 0.5, measures=MEASURES), row("b", 0.0, 0.0, measures={}, n_settings_passing=0)]
    )
    header, _, first, second = table.splitlines()
    for name in (
        "settings that pass",
        "random features",
        "loss, retain text",
        "KL, forget",
        "paraphrases",
        "relearned",
    ):
        assert name in header
    assert "recall" not in header
    for value in (
        "2 of 4",
        "0.980 (p = 0.048)",
        "3.000 to 3.010",
        "2.500 to 4.000",
        "1.2500",
        "0.300",
        "0.200 to 0.800",
    ):
        assert value in first
    assert second.split()[:5] == ["b", "0", "0", "of", "4"]


def test_the_relearning_curve_starts_at_the_edited_accuracy():
    figure = draw_relearning(SavedResults([row("a", 0.5, 0.5, measures=MEASURES), row("b", 0.0, 0.0)]))
    (axes,) = figure.axes
    assert points(axes, "a") == [(0, 0.2), (1, 0.3), (2, 0.8)]
    assert {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}["unedited model"] == 1.0
    assert draw_relearning(SavedResults([row("b", 0.0, 0.0)])) is None
