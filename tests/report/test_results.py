import shutil

import pytest
from made_results import history, row, run

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report import SavedResults, load_results


def test_rows_and_the_history_of_each_variant_are_found(run_folder):
    results = load_results(run_folder)
    assert [row["variant"] for row in results.rows] == ["baseline", "contrastive"]
    assert [(run.variant, run.seed, run.setting, len(run.history)) for run in results.runs] == [
        ("baseline", 0, "", 20),
        ("contrastive", 0, "", 20),
    ]


def test_the_runs_of_a_study_are_told_apart_by_setting_and_seed(study_folder):
    results = load_results(study_folder)
    assert results.settings == ["wide", "narrow"]
    assert results.variants == ["run0", "run5"]
    for setting in results.settings:
        runs = results.runs_of(setting)
        assert {variant: [run.seed for run in seeds] for variant, seeds in runs.items()} == {
            "run0": [0, 1],
            "run5": [0, 1],
        }
        assert all(run.history[0]["overall_loss"] == pytest.approx(5.4 * (1 + run.seed)) for run in runs["run0"])
        assert [row["seed"] for row in results.rows_of(setting)["run5"]] == [0, 1]
    assert results.title_of("narrow") == "narrow, d_sae 16, layer 21"


def test_the_summary_names_a_run_and_without_one_its_folder_does(study_folder):
    write_json(study_folder / "wide/seed0/train/run0/summary.json", {"variant": "renamed", "seed": 7})
    (study_folder / "wide/seed1/train/run0/summary.json").unlink()
    runs = load_results(study_folder).runs_of("wide")
    assert [run.seed for run in runs["renamed"]] == [7]
    assert [run.seed for run in runs["run0"]] == [1]


def test_runs_that_only_their_folder_tells_apart_take_its_path_for_a_name(tmp_path):
    for folder in ("mine/train/a", "yours/train/a", "yours/train/b"):
        write_json(tmp_path / folder / "history.json", history(2))
    assert load_results(tmp_path).variants == ["mine/train/a", "yours/train/a", "b"]


def test_trackers_are_read_next_to_the_history(study_folder):
    results = load_results(study_folder)
    found = results.runs_with("grouping")
    assert {setting: list(variants) for setting, variants in found.items()} == {"wide": ["run5"], "narrow": ["run5"]}
    trackers = found["wide"]["run5"][0].trackers
    assert [record.step for record in trackers.grouping] == [99, 199, 299, 399]
    assert trackers.grouping[0].clusters is None
    assert trackers.grouping[3].clusters.n_died == 4
    assert trackers.importance[0].quantiles.p99 == 0.6
    assert [record.stage for record in trackers.curriculum] == ["reconstruct", "differentiate", "unlearn"]
    assert results.runs_of("wide")["run0"][0].trackers.grouping == ()


def test_a_row_keeps_the_setting_its_evaluation_chose():
    chosen = {"retain_threshold": 0.01, "n_features": 10, "multiplier": 60.0}
    assert SavedResults([row("a", 0.5, 0.5, setting=chosen)]).settings == [""]
    assert SavedResults([row("a", 0.5, 0.5, setting=chosen, study_setting="wide")]).settings == ["wide"]


def test_a_setting_is_titled_only_with_what_its_rows_share():
    rows = [row("a", 0.5, 0.5, study_setting="mixed", d_sae=d_sae, layer=12) for d_sae in (64, 128)]
    assert SavedResults(rows).title_of("mixed") == "mixed, layer 12"
    assert SavedResults(runs=[run("a", setting="bare")]).title_of("bare") == "bare"


def test_either_part_may_be_absent(run_folder):
    assert load_results(run_folder / "train").rows == []
    for path in run_folder.rglob("history.json"):
        path.unlink()
    assert load_results(run_folder).runs == []


def test_a_run_too_short_to_record_anything_has_no_history(run_folder):
    (run_folder / "train" / "baseline" / "history.json").write_text("[]")
    assert load_results(run_folder / "train").variants == ["contrastive"]
    assert load_results(run_folder / "train" / "baseline").runs == []


def test_checkpoints_are_passed_over_but_not_a_folder_that_lies_below_one_called_so(run_folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("trained") / "checkpoints/mine"
    shutil.copytree(run_folder, own)
    assert [run.variant for run in load_results(own).runs] == ["baseline", "contrastive"]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds neither results\.json nor a history\.json"):
        load_results(tmp_path)
    with pytest.raises(UserError, match=r"No folder at .*gone.*--out folder"):
        load_results(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "[{", r"results\.json is not a readable JSON file"),
        (
            "results.json",
            "{}",
            r"is not a list of evaluation results \(Input should be a valid list\)\. Run the evaluation",
        ),
        ("results.json", '[{"variant": "a"}]', r"not a list of evaluation results"),
        ("results.json", '[{"unlearning_score": 0.5}]', r"not a list of evaluation results"),
        ("results.json", '[{"variant": "a", "seed": 0, "held_out": {}}]', r"not a list of evaluation results"),
        ("train/baseline/history.json", "", r"baseline/history\.json is not a readable JSON file"),
        (
            "train/baseline/history.json",
            '{"step": 1}',
            r"is not a training history \(Input should be a valid list\)\. Run the training again",
        ),
        ("train/baseline/history.json", "[1]", r"is not a training history"),
        ("train/baseline/summary.json", '{"seed": 0}', r"summary\.json is not the summary of a training run"),
        ("train/baseline/summary.json", "[", r"summary\.json is not a readable JSON file"),
        ("train/baseline/trackers.json", "{", r"trackers\.json is not a readable JSON file"),
        ("train/baseline/trackers.json", "[1]", r"trackers\.json does not hold tracker records \(Input should be"),
        ("train/baseline/trackers.json", '{"pruning": 3}', r"tracker records \(pruning: .*\)\. Run the training again"),
        (
            "train/baseline/trackers.json",
            '{"pruning": [{"step": 1, "n_pruned": 2}, {"step": 2}]}',
            r"\(pruning\.1\.n_pruned: Field required\)",
        ),
        ("train/baseline/trackers.json", '{"stability": [{"step": "x"}]}', r"\(stability\.0\.step: Input should be"),
    ],
)
def test_a_damaged_file_is_named(run_folder, name, content, message):
    (run_folder / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_results(run_folder)
    assert "\n" not in str(error.value)
