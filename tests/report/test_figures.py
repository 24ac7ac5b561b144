from made_results import history, row
from PIL import Image

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report import SavedResults, load_results, write_figures

ALL = ["unlearning_scores.png", "training_losses.png", "feature_thresholds.png"]


def _is_drawn(path):
    with Image.open(path) as image:
        assert min(image.size) >= 400
        # Text, axes and several coloured series make many shades; an empty canvas is one.
        assert len(image.convert("RGB").getcolors(maxcolors=2**24)) > 100


def test_the_three_figures_of_a_run(run_folder):
    written = write_figures(load_results(run_folder), run_folder)
    assert [path.name for path in written] == ALL
    for path in written:
        _is_drawn(path)


def test_what_has_no_data_is_not_drawn(tmp_path):
    assert write_figures(SavedResults(), tmp_path / "new") == []
    assert not (tmp_path / "new").exists()
    assert [path.name for path in write_figures(SavedResults(histories={"plain": history()}), tmp_path)] == ALL[1:2]
    untried = row("a", 0.0, 0.0, cause="unknown_questions", frontier=[])
    assert [path.name for path in write_figures(SavedResults(rows=[untried]), tmp_path)] == ALL[:1]


def test_the_poorest_results_are_drawn_without_a_warning(tmp_path):
    certain = {**row("a", 0.0, 0.0)["held_out"], "ci95": [1.0, 1.0]}
    results = SavedResults(
        rows=[row("a", 0.0, 0.0, cause="no_features", held_out=certain)], histories={"one record": history(1)}
    )
    for path in write_figures(results, tmp_path):
        _is_drawn(path)


def test_many_variants_and_seeds_fit(tmp_path):
    rows = [row(f"run{i}", 0.1 * i, 0.12 * i, seed=seed) for i in range(6) for seed in (0, 1)]
    write_json(tmp_path / "results.json", rows)
    for i in range(6):
        write_json(tmp_path / f"run{i}" / "history.json", history(scale=1 + i / 5, threshold=0.1 + i / 10))
    for path in write_figures(load_results(tmp_path), tmp_path):
        _is_drawn(path)
