import pytest

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.report import load_results


def test_rows_and_the_history_of_each_variant_are_found(run_folder):
    results = load_results(run_folder)
    assert [row["variant"] for row in results.rows] == ["baseline", "contrastive"]
    assert {name: len(history) for name, history in results.histories.items()} == {"baseline": 20, "contrastive": 20}


def test_either_part_may_be_absent(run_folder):
    assert load_results(run_folder / "train").rows == []
    for path in run_folder.rglob("history.json"):
        path.unlink()
    assert load_results(run_folder).histories == {}


def test_a_run_too_short_to_record_anything_has_no_history(run_folder):
    (run_folder / "train" / "baseline" / "history.json").write_text("[]")
    assert load_results(run_folder / "train").histories.keys() == {"contrastive"}
    assert load_results(run_folder / "train" / "baseline").histories == {}


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds neither results\.json nor a history\.json"):
        load_results(tmp_path)
    with pytest.raises(UserError, match=r"No folder at .*gone.*--out folder"):
        load_results(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "[{", r"results\.json is not a readable JSON file"),
        ("results.json", "{}", r"results\.json is not a list of evaluation results\. Run the evaluation again"),
        ("results.json", '[{"variant": "a"}]', r"not a list of evaluation results"),
        ("results.json", '[{"unlearning_score": 0.5}]', r"not a list of evaluation results"),
        ("train/baseline/history.json", "", r"baseline/history\.json is not a readable JSON file"),
        ("train/baseline/history.json", '{"step": 1}', r"is not a training history\. Run the training again"),
        ("train/baseline/history.json", "[1]", r"is not a training history"),
    ],
)
def test_a_damaged_file_is_named(run_folder, name, content, message):
    (run_folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_results(run_folder)
