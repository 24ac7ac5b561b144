import pytest
from drawn import column, legend, line, panel, points, titles, visible
from made_results import CURRICULUM, history, run, stability

from sae_lens_contrastive.report import SavedResults
from sae_lens_contrastive.report.over_steps import draw_curriculum, draw_stability, draw_training_losses
from sae_lens_contrastive.report.panels import COLOURS


def test_a_panel_for_each_loss_and_a_line_for_each_variant_that_has_it():
    runs = [run("plain"), run("more", records=history(scale=2, terms=("separation_loss",)))]
    figure = draw_training_losses(SavedResults(runs=runs))
    # auxiliary_reconstruction_loss is always 0 and not drawn.
    assert [axes.get_title() for axes in visible(figure)] == ["overall loss", "mse loss", "separation loss"]
    assert legend(figure) == ["plain", "more"]
    overall = panel(figure, "overall loss")
    assert points(overall, "plain")[0] == (5, pytest.approx(5.4))
    assert points(overall, "more")[0] == (5, pytest.approx(10.8))
    assert line(overall, "plain").get_alpha() == 0.7
    assert [line.get_label() for line in panel(figure, "separation loss").get_lines()] == ["more"]
    # From 10.8 down to 0.65 in all panels of the loss.
    assert overall.get_yscale() == "log"


def test_seeds_of_a_variant_are_thin_lines_of_one_colour_behind_their_mean():
    runs = [run("a", seed, records=history(scale=1 + 2 * seed)) for seed in (0, 1)] + [run("b")]
    figure = draw_training_losses(SavedResults(runs=runs))
    overall = panel(figure, "overall loss")
    assert [line.get_color() for line in overall.get_lines()] == [COLOURS[0]] * 3 + [COLOURS[1]]
    thin = [line.get_ydata()[0] for line in overall.get_lines() if line.get_linewidth() < 1]
    assert thin == pytest.approx([5.4, 16.2])
    assert points(overall, "a")[0] == (5, pytest.approx(10.8))
    assert legend(figure) == ["a", "b", "thin: one seed of 2"]


def test_more_variants_than_colours_have_another_line_style():
    figure = draw_training_losses(SavedResults(runs=[run(f"run{i:02d}") for i in range(14)]))
    lines = panel(figure, "overall loss").get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 14
    assert [line.get_linestyle() for line in lines] == ["-"] * 8 + ["--"] * 6
    assert len(legend(figure)) == 14


def test_a_variant_keeps_its_colour_in_every_setting():
    runs = [run("a", setting="wide"), run("b", setting="wide"), run("b", setting="narrow")]
    figure = draw_training_losses(SavedResults(runs=runs))
    assert titles(figure) == ["wide", "narrow"]
    for place in (0, 1):
        assert line(panel(figure, "overall loss", place), "b").get_color() == COLOURS[1]


def test_a_long_history_is_drawn_as_means_and_says_so():
    figure = draw_training_losses(SavedResults(runs=[run("a", records=history(241))]))
    assert len(points(panel(figure, "overall loss"), "a")) == 81
    assert figure.legends[0].get_title().get_text() == "points are means of up to 3 successive records"
    short = draw_training_losses(SavedResults(runs=[run("a", records=history(120))]))
    assert len(points(panel(short, "overall loss"), "a")) == 120
    assert short.legends[0].get_title().get_text() == ""


@pytest.mark.parametrize(
    ("losses", "scale"), [([1.0, 1.1, 1.2], "linear"), ([9.0, 1.0, 0.5], "log"), ([-0.1, -9.0, 0.2], "linear")]
)
def test_a_loss_that_spans_much_has_a_logarithmic_scale(losses, scale):
    records = [{"step": step, "overall_loss": loss} for step, loss in enumerate(losses, start=1)]
    (axes,) = draw_training_losses(SavedResults(runs=[run("a", records=records)])).axes
    assert axes.get_yscale() == scale


def test_one_record_is_a_dot():
    (axes, *_others) = visible(draw_training_losses(SavedResults(runs=[run("a", records=history(1))])))
    assert line(axes, "a").get_marker() == "o"


def test_stability_has_a_panel_for_each_quantity_that_was_recorded():
    runs = [
        run("tracked", stability=stability()),
        run("ungrouped", stability=stability(adjusted_rand_index=None)),
        run("a"),
    ]
    figure = draw_stability(SavedResults(runs=runs))
    assert [axes.get_title() for axes in visible(figure)] == [
        "decoder cosine, mean over features",
        "decoder cosine, 5th percentile",
        "adjusted Rand index of successive groupings",
    ]
    assert legend(figure) == ["tracked", "ungrouped"]
    cosine = panel(figure, "decoder cosine, mean over features")
    assert points(cosine, "tracked") == [(99, 0.9), (199, 0.9), (299, 0.9), (399, 0.9)]
    rand = panel(figure, "adjusted Rand index of successive groupings")
    assert [line.get_label() for line in rand.get_lines()] == ["tracked"]


def test_stages_are_bands_over_the_loss_and_the_forget_share():
    shares = [{**record, "forget_share": min(1.0, 0.5 + record["step"] / 100)} for record in history()]
    results = SavedResults(runs=[run("plain"), run("staged", records=shares, curriculum=CURRICULUM)])
    figure = draw_curriculum(results)
    assert [axes.get_title() for axes in visible(figure) if axes.get_title()] == ["staged"]
    loss, share = column(figure, "staged", 2)
    for axes in (loss, share):
        bands = {patch.get_label(): (patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches}
        # The history ends at step 100.
        assert bands == {"stage reconstruct": (0, 15), "stage differentiate": (15, 50), "stage unlearn": (50, 100)}
        assert len({patch.get_facecolor() for patch in axes.patches}) == 3
    (drawn,) = share.get_lines()
    assert [tuple(point) for point in drawn.get_xydata()][:2] == [(5, 0.55), (10, 0.6)]
    assert drawn.get_ydata()[-1] == 1
    assert legend(figure) == ["stage reconstruct", "stage differentiate", "stage unlearn"]


def test_nothing_recorded_is_nothing_drawn():
    for draw in (draw_training_losses, draw_stability, draw_curriculum):
        assert draw(SavedResults(runs=[run("a", records=[{"step": 1, "l0": 3.0}])])) is None
