import itertools

import pytest
from drawn import bars, dots, legend, texts, titles
from made_results import row
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.scores import FORGETTING, SCORE, draw_unlearning_scores


def _several_seeds():
    return [
        row("run0", 0.0, 0.0, seed=0, cause="retain_gate"),
        row("run0", 0.0, 0.0, seed=1, cause="retain_gate"),
        row("run0", 0.0, 0.0, seed=2, cause="retain_gate"),
        row("run1", 0.3, 0.4, seed=0),
        row("run1", 0.0, 0.1, seed=1, cause="no_effect"),
        row("run1", 0.6, 1.0, seed=2),
    ]


def test_a_bar_is_the_mean_over_seeds_with_a_dot_for_each_and_a_line_over_the_interval():
    figure = draw_unlearning_scores(SavedResults(_several_seeds()))
    (axes,) = figure.axes
    assert bars(axes, SCORE) == pytest.approx([0, 0.3])
    assert bars(axes, FORGETTING) == pytest.approx([0, 0.5])
    assert dots(axes) == [[0, 0, 0], [0.3, 0, 0.6], [0, 0, 0], [0.4, 0.1, 1]]
    ranges = [list(line.get_xdata()) for line in axes.get_lines() if line.get_linewidth() == 1.2]
    # 4.3027 s / sqrt(3), with s = 0.3 for scores of 0.3, 0 and 0.6 and 0.4583 for 0.4, 0.1 and 1.
    assert ranges[1] == pytest.approx([0.3 - 0.7452, 0.3 + 0.7452], abs=1e-4)
    assert ranges[3] == pytest.approx([0.5 - 1.1384, 0.5 + 1.1384], abs=1e-4)
    assert ranges[::2] == [[0, 0], [0, 0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["run0", "run1"]
    assert legend(figure)[:2] == [SCORE, FORGETTING]
    assert legend(figure)[2:] == ["score of a model at chance", "one seed", "95 % interval of the mean (3 seeds)"]


def test_the_cause_of_a_zero_stands_at_its_bar():
    (axes,) = draw_unlearning_scores(SavedResults(_several_seeds())).axes
    assert texts(axes) == ["0.00  retain_gate", "0.30  no_effect (1 of 3 seeds)", "0.00", "0.50"]
    cause = axes.texts[0]
    assert cause.xy == (0, pytest.approx(-0.2))


def test_one_seed_has_the_interval_over_questions():
    figure = draw_unlearning_scores(SavedResults([row("a", 0.5, 0.4, accuracy=0.7)]))
    (axes,) = figure.axes
    assert dots(axes) == []
    # Accuracies 0.6 to 0.78 of what is known, with chance 0.25, forget (1 - 0.78) / 0.75 to (1 - 0.6) / 0.75.
    (interval,) = [line.get_xdata() for line in axes.get_lines() if line.get_linewidth() == 1.2]
    assert interval == pytest.approx((0.22 / 0.75, 0.4 / 0.75))
    assert legend(figure)[-1] == "95 % interval over questions (one seed)"
    # Chance is a score of 0.75 here.
    assert next(line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--") == 0.75


def test_each_setting_has_a_block_with_its_own_variants():
    rows = [row("a", 0.5, 0.5, study_setting="wide", d_sae=64), row("b", 0.4, 0.4, study_setting="wide", d_sae=64)]
    figure = draw_unlearning_scores(
        SavedResults([*rows, row("b", 0.0, 0.0, study_setting="narrow", cause="no_features")])
    )
    assert titles(figure) == ["wide, d_sae 64", "narrow"]
    assert [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes] == [["a", "b"], ["b"]]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_labels_and_numbers_of_many_variants_stay_inside_and_apart():
    names = [f"run5_without_reinitialisation_or_curriculum_{i}" for i in range(14)]
    rows = [
        row(name, 0.07 * i * (seed > 0), 0.07 * i, seed=seed, cause=None if i * seed else "unknown_questions")
        for i, name in enumerate(names)
        for seed in (0, 1, 2)
    ]
    figure = draw_unlearning_scores(SavedResults(rows))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert "\n" in axes.get_yticklabels()[0].get_text()
    labels = [label.get_window_extent() for label in axes.get_yticklabels()]
    notes = [text.get_window_extent() for text in axes.texts]
    for boxes in (labels, notes):
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
