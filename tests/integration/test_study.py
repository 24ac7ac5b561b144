"""A study on the tiny target: settings, seeds and variants end in one table, and a second call changes nothing."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sae_lens_contrastive import UserError
from sae_lens_contrastive import study as study_module
from sae_lens_contrastive.report import load_results
from sae_lens_contrastive.study import ROWS_FILE, SUMMARY_KEYS, run_study

ROOT = Path(__file__).parents[2]
SHORT = {"training": {"training_tokens": 2048, "train_batch_size_tokens": 256, "cache_tokens": 1024}}


class _ModelWantedError(Exception):
    pass


def _wanted(*_args, **_kwargs):
    raise _ModelWantedError


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    spec = yaml.safe_load((ROOT / "evals/world_facts_tiny.yaml").read_text())
    (folder / "spec.yaml").write_text(yaml.safe_dump({**spec, "max_questions": 8, "n_bootstrap": 50}))
    variants = ROOT / "configs/variants"
    settings = {
        "as_published": {"variants": [str(variants / "run0.yaml")], "overrides": {"sae": {"d_sae": 32}, **SHORT}},
        "sparse": {
            "variants": [str(variants / "run0.yaml"), str(variants / "run2.yaml")],
            "overrides": {"sae": {"architecture": "topk", "d_sae": 64}, **SHORT},
        },
    }
    target = str(ROOT / "configs/targets/tiny.yaml")
    study = {"target": target, "spec": "spec.yaml", "seeds": [0, 1], "settings": settings}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def test_a_study_ends_in_a_row_for_every_setting_seed_and_variant(study_file, model_cache, tmp_path, monkeypatch):
    rows = run_study(study_file, tmp_path)
    found = [(row["study_setting"], row["seed"], row["variant"], row["d_sae"], row["architecture"]) for row in rows]
    assert found == [
        ("as_published", 0, "run0", 32, "standard"),
        ("as_published", 1, "run0", 32, "standard"),
        ("sparse", 0, "run0", 64, "topk"),
        ("sparse", 0, "run2", 64, "topk"),
        ("sparse", 1, "run0", 64, "topk"),
        ("sparse", 1, "run2", 64, "topk"),
    ]
    assert all(set(SUMMARY_KEYS) <= row.keys() for row in rows)
    assert all(row["target"] == "tiny" and row["layer"] == 19 for row in rows)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert {"unlearning_scores.png", "training_losses.png"} <= {path.name for path in tmp_path.glob("*.png")}
    assert (tmp_path / "report.html").is_file()
    monkeypatch.setattr(study_module, "train_runs", lambda runs, out, *_: [out / run.variant for run in runs])
    assert run_study(study_file, tmp_path) == rows


def test_a_seed_trains_on_activations_of_its_own_and_shares_them_between_settings(study_file, model_cache, tmp_path):
    run_study(study_file, tmp_path)
    assert len(list((tmp_path / "activations").iterdir())) == 2


def test_a_setting_can_have_seeds_a_domain_and_further_evaluations_of_its_own(study_file, model_cache, tmp_path):
    gated = {"interventions": {"clamp": None, "gated": {"multiplier": [5.0]}}, "n_features": [2]}
    sparse = {
        "seeds": [1],
        "spec": {"forget_domain": "animals", "forget_questions": ["world_facts/animals"], "max_questions": 24}
        | {"retain_questions": ["world_facts/plurals"], "forget_corpora": ["world_facts/animals"]},
        "evaluations": {"gated": gated},
    }
    rows = run_study(study_file, tmp_path, {"settings": {"sparse": sparse}})
    found = [(row["study_setting"], row["seed"], row["variant"], row["forget_domain"]) for row in rows]
    assert found == [
        ("as_published", 0, "run0", "countries"),
        ("as_published", 1, "run0", "countries"),
        ("sparse", 1, "run0", "animals"),
        ("sparse", 1, "run2", "animals"),
        ("sparse", 1, "run0, gated", "animals"),
        ("sparse", 1, "run2, gated", "animals"),
    ]
    interventions = [{setting["intervention"] for setting in row["frontier"]} for row in rows[2:]]
    assert interventions == [{"clamp"}, {"clamp"}, {"gated"}, {"gated"}]


def test_parts_that_were_run_one_by_one_elsewhere_make_the_same_results(study_file, model_cache, tmp_path, monkeypatch):
    first = run_study(study_file, tmp_path / "one", only=["sparse/seed1", "as_published"])
    assert [(row["study_setting"], row["seed"]) for row in first] == [
        ("as_published", 0),
        ("as_published", 1),
        ("sparse", 1),
        ("sparse", 1),
    ]
    second = run_study(study_file, tmp_path / "two", only=["sparse/seed0"])
    for place in ("as_published/seed0", "as_published/seed1", "sparse/seed1"):
        (tmp_path / "two" / place).mkdir(parents=True)
        shutil.copy(tmp_path / "one" / place / ROWS_FILE, tmp_path / "two" / place)
    monkeypatch.setattr(study_module, "load_model", lambda *_a, **_k: pytest.fail("the model was loaded"))
    rows = run_study(study_file, tmp_path / "two")
    assert rows == [*first[:2], *second, *first[2:]]
    assert json.loads((tmp_path / "two/results.json").read_text()) == rows


def test_a_part_that_another_process_finishes_meanwhile_is_not_run_again(
    study_file, model_cache, tmp_path, monkeypatch
):
    first = run_study(study_file, tmp_path / "one", only=["as_published"])
    run_part, ran = study_module._rows, []

    def run_beside_another(place, *arguments):
        ran.append(place)
        (tmp_path / "two/as_published/seed1").mkdir(parents=True)
        shutil.copy(tmp_path / "one/as_published/seed1" / ROWS_FILE, tmp_path / "two/as_published/seed1")
        return run_part(place, *arguments)

    monkeypatch.setattr(study_module, "_rows", run_beside_another)
    rows = run_study(study_file, tmp_path / "two", only=["as_published"])
    assert ran == ["as_published/seed0"]
    assert rows[1] == first[1]
    assert json.loads((tmp_path / "two/results.json").read_text()) == rows


def test_parts_are_taken_from_earlier_results_unless_something_has_changed(
    study_file, model_cache, tmp_path, monkeypatch
):
    first = run_study(study_file, tmp_path / "one", only=["sparse"])
    earlier = tmp_path / "one/results.json"
    monkeypatch.setattr(study_module, "load_model", lambda *_a, **_k: pytest.fail("the model was loaded"))
    assert run_study(study_file, tmp_path / "two", only=["sparse"], finished=earlier) == first
    assert run_study(study_file, tmp_path / "two", only=["sparse"]) == first
    assert load_results(tmp_path / "two").rows == first

    # Half of a part, and a part of another configuration, are run anew.
    monkeypatch.setattr(study_module, "load_model", _wanted)
    earlier.write_text(json.dumps(first[1:]))
    with pytest.raises(_ModelWantedError):
        run_study(study_file, tmp_path / "three", only=["sparse/seed0"], finished=earlier)
    changes = {"settings": {"sparse": {"spec": {"n_bootstrap": 51}}}}
    with pytest.raises(_ModelWantedError):
        run_study(study_file, tmp_path / "four", changes, only=["sparse/seed1"], finished=earlier)
    earlier.write_text('{"rows": []}')
    with pytest.raises(UserError, match="not a list of evaluation results"):
        run_study(study_file, tmp_path / "five", finished=earlier)
    assert not (tmp_path / "five").exists()


def test_rows_are_taken_over_only_under_the_names_that_the_study_gives_them(study_file, tmp_path, monkeypatch):
    specs = [{"n_features": [2]}, {"n_features": [3]}]

    def calling_them(*names):
        return {"settings": {"as_published": {"evaluations": dict(zip(names, specs, strict=True))}}}

    def rows_of(_place, part, *_others):
        names = [f"run0, {name}" if name else "run0" for name in part.evaluations]
        return [row(name, study_setting=part.setting) for name in names]

    monkeypatch.setattr(study_module, "load_model", lambda *_a, **_k: None)
    monkeypatch.setattr(study_module, "_rows", rows_of)
    first = run_study(study_file, tmp_path / "one", calling_them("few", "many"), only=["as_published/seed0"])
    assert [each["variant"] for each in first] == ["run0", "run0, few", "run0, many"]
    monkeypatch.setattr(study_module, "load_model", _wanted)
    how = {"only": ["as_published/seed0"], "finished": tmp_path / "one/results.json"}
    assert run_study(study_file, tmp_path / "two", calling_them("few", "many"), **how) == first
    for number, names in enumerate((("few", "all"), ("many", "few"))):
        out = tmp_path / f"renamed{number}"
        with pytest.raises(_ModelWantedError):
            run_study(study_file, out, calling_them(*names), **how)
        (out / "as_published/seed0").mkdir(parents=True)
        shutil.copy(tmp_path / "one/as_published/seed0" / ROWS_FILE, out / "as_published/seed0")
        with pytest.raises(_ModelWantedError):
            run_study(study_file, out, calling_them(*names), only=how["only"])


def row(variant, **facts):
    held_out = {"forget_accuracy": 0.5, "chance": 0.25, "forgetting": 0.7, "retain_accuracy": 1.0, "ci95": [0.4, 0.6]}
    scored = {"unlearning_score": 0.5, "held_out": held_out, "cause_of_zero": None, "retain_gate": 0.99}
    return {"variant": variant, "seed": 0, "forget_domain": "countries", **scored, **facts}


def test_a_part_whose_questions_have_changed_is_run_again(study_file, model_cache, tmp_path):
    run_study(study_file, tmp_path, only=["as_published/seed0"])
    saved = tmp_path / "as_published/seed0" / ROWS_FILE
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "part": "of other questions", "rows": []}))
    assert len(run_study(study_file, tmp_path, only=["as_published/seed0"])) == 1
    saved.write_text("[]")
    with pytest.raises(UserError, match="Delete it to run the part again"):
        run_study(study_file, tmp_path)


def test_a_part_that_the_study_lacks_is_refused_before_anything_is_written(study_file, tmp_path):
    with pytest.raises(UserError, match=r"no part 'sparse/seed2'.* as_published, sparse, .*as_published/seed0"):
        run_study(study_file, tmp_path / "out", only=["sparse/seed2"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"sparse": {"seeds": [2]}}}, "not in seeds"),
        ({"settings": {"sparse": {"spec": {"dtype": "bfloat16"}}}}, "cannot change model, dtype or device"),
        ({"settings": {"sparse": {"evaluations": {"../up": {}}}}}, "it becomes a folder"),
        ({"settings": {"sparse": {"evaluations": {"plain": {}}}}}, "Give the further one another name"),
        ({"settings": {"sparse": {"spec": {"forget_questions": ["world_facts/nowhere"]}}}}, "nowhere"),
        ({"settings": {"sparse": {"evaluations": {"gated": {"n_featurs": [1]}}}}}, "Did you mean 'n_features'"),
        ({"seeds": [0, 0]}, "distinct seeds"),
        ({"settings": {"sparse": {"variants": ["nowhere.yaml"]}}}, "No file at"),
        ({"settings": {"sparse": {"overrides": {"sae": {"d_sea": 3}}}}}, "Did you mean 'd_sae'"),
        ({"target": "nowhere.yaml"}, "No file at"),
        ({"sets": {}}, "Unknown key 'sets'"),
    ],
)
def test_a_wrong_study_is_refused_before_the_model_loads(changes, message, study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "load_model", lambda *_a, **_k: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match=message):
        run_study(study_file, tmp_path / "out", changes)


@pytest.mark.parametrize("name", ["study_smollm2", "recipe_smollm2", "study_tiny"])
def test_the_shipped_studies_pass_every_check_that_needs_no_model(name, tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "load_model", _wanted)
    with pytest.raises(_ModelWantedError):
        run_study(ROOT / f"evals/{name}.yaml", tmp_path / "out")
