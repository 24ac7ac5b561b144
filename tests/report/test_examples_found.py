import pytest
from made_results import examples

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.report.examples import load_examples
from sae_lens_contrastive.report.provenance import load_configurations, version_cells


def test_examples_are_found_below_an_evaluation_a_demo_and_a_study(tmp_path):
    for place in ("eval-out/examples", "demo-out/eval/examples"):
        write_json(tmp_path / place / "a.json", examples("a"))
    write_json(tmp_path / "study-out/wide/seed0/eval/gated/examples/a.json", examples("a, gated"))
    found = {name: load_examples(tmp_path / name) for name in ("eval-out", "demo-out", "study-out")}
    assert [(each.setting, each.examples.variant) for each in found["eval-out"]] == [("", "a")]
    assert [(each.setting, each.examples.variant) for each in found["demo-out"]] == [("", "a")]
    assert [(each.setting, each.examples.variant) for each in found["study-out"]] == [("wide", "a, gated")]
    assert load_examples(tmp_path) == []


def test_of_several_seeds_the_first_is_shown(tmp_path):
    for seed in (10, 2):
        write_json(tmp_path / f"wide/seed{seed}/eval/plain/examples/a.json", examples("a", seed))
    (found,) = load_examples(tmp_path)
    assert found.examples.seed == 2


def test_each_part_of_a_study_and_each_run_of_a_training_has_its_configuration(tmp_path):
    write_json(tmp_path / "study/run.json", {"kind": "study", "config": {"wide/seed0": {"lr": 0.1}, "wide/seed1": {}}})
    for name in ("a", "b"):
        write_json(tmp_path / "train" / name / "run.json", {"kind": "train", "config": {"variant": name}})
    study, train = load_configurations(tmp_path / "study"), load_configurations(tmp_path / "train")
    assert [(each.name, each.lines) for each in study] == [("wide/seed0", ["lr: 0.1", ""]), ("wide/seed1", ["{}", ""])]
    assert [(each.name, each.lines[0]) for each in train] == [("a", "variant: a"), ("b", "variant: b")]
    assert load_configurations(tmp_path / "train" / "a" / "nothing") == []


def test_a_configuration_that_is_too_long_to_read_is_cut_off(tmp_path):
    write_json(tmp_path / "run.json", {"kind": "eval", "config": {"numbers": list(range(10_000))}})
    (found,) = load_configurations(tmp_path)
    assert sum(map(len, found.lines)) < 20_100
    assert found.lines[-1] == "[...]"


def test_a_configuration_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "run.json").write_text(f'{{"kind": "eval", "config": {{"a": {"[" * 400}{"]" * 400}}}}}')
    with pytest.raises(UserError, match="nested too deeply"):
        load_configurations(tmp_path)


def test_versions_that_differ_between_rows_are_all_named():
    rows = [{"provenance": {"versions": {"torch": version}}} for version in ("2.1", "2.2", "2.1")]
    assert version_cells(rows).lines == [("torch", "2.1, 2.2")]
    assert version_cells([{"provenance": None}, {}]) is None
