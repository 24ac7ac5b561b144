import itertools
import resource

import pytest
from made_results import (
    CURRICULUM,
    PRUNING,
    REINITIALISATION,
    RELEARNING,
    grouping,
    history,
    importance,
    row,
    run,
    stability,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.report import SavedResults, load_results, write_figures
from sae_lens_contrastive.report.figures import DRAWINGS

ALL = [
    *("unlearning_scores.png", "training_losses.png", "feature_thresholds.png"),
    *("correlation_history.png", "clusters.png", "importance.png", "stability.png", "curriculum.png"),
    *("frontier.png", "relearning.png"),
]


def _is_drawn(path):
    with Image.open(path) as image:
        assert min(image.size) >= 300
        # Text, axes and several coloured series make many shades; an empty canvas is one.
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 100


def test_the_figures_of_a_run(run_folder):
    written = write_figures(load_results(run_folder), run_folder)
    assert [path.name for path in written] == [*ALL[:3], "frontier.png"]
    for path in written:
        _is_drawn(path)


def test_every_figure_of_a_study(study_folder):
    written = write_figures(load_results(study_folder), study_folder / "figures")
    assert [path.name for path in written] == ALL
    for path in written:
        _is_drawn(path)


@pytest.fixture
def full_disk():
    """No file grows beyond a size, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_fills_is_said_and_leaves_no_half_of_a_figure(tmp_path, full_disk):
    results = SavedResults(runs=[run("plain")])
    (tmp_path / "training_losses.png").write_bytes(b"the one before")
    with pytest.raises(UserError, match=r"There is no room to write .*training_losses\.png"):
        write_figures(results, tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]


def test_what_has_no_data_is_not_drawn(tmp_path):
    assert write_figures(SavedResults(), tmp_path / "new") == []
    assert not (tmp_path / "new").exists()
    assert [path.name for path in write_figures(SavedResults(runs=[run("plain")]), tmp_path)] == ALL[1:2]
    untried = row("a", 0.0, 0.0, cause="unknown_questions", frontier=[])
    assert [path.name for path in write_figures(SavedResults(rows=[untried]), tmp_path)] == ALL[:1]


def test_the_poorest_results_are_drawn_without_a_warning(tmp_path):
    certain = {**row("a", 0.0, 0.0)["held_out"], "ci95": [1.0, 1.0]}
    poorest = run(
        "one record",
        records=history(1),
        grouping=grouping(1, sizes=(), n_groups=0, n_grouped=0, threshold=None),
        importance=importance(1, scale=0.0, n_below_threshold=0),
        stability=stability(1, mean=None),
        curriculum=[{"step": 9, "stage": "only", "forget_share": None}],
    )
    results = SavedResults(rows=[row("a", 0.0, 0.0, cause="no_features", held_out=certain)], runs=[poorest])
    for path in write_figures(results, tmp_path):
        _is_drawn(path)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("settings", "n_variants", "n_seeds"), [(("wide", "narrow"), 5, 2), (("",), 1, 1)])
def test_no_text_overlaps_or_is_cut_off(name, settings, n_variants, n_seeds):
    trackers = {"grouping": grouping(), "importance": importance(), "stability": stability()}
    trackers |= {"pruning": PRUNING, "reinitialisation": REINITIALISATION, "curriculum": CURRICULUM}
    variants = [f"run5_without_part_{i}" for i in range(n_variants)]
    keys = list(itertools.product(variants, range(n_seeds), settings))
    results = SavedResults(
        [
            row(variant, 0.5, 0.6 + 0.2 * seed, seed=seed, study_setting=setting, measures={"relearning": RELEARNING})
            for variant, seed, setting in keys
        ],
        [run(*key, records=history(threshold=0.2), **trackers) for key in keys],
    )
    figure = DRAWINGS[name](results)
    FigureCanvasAgg(figure).draw()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    texts = [text for axes in shown for text in (axes.title, axes.xaxis.label, *axes.texts)]
    texts += [block._suptitle for block in figure.subfigs if block._suptitle] + figure.legends[0].get_texts()
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) >= 4
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
