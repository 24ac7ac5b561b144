import importlib.util
import json
import time
from pathlib import Path

import jsonschema
import pytest

from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, UnlearningResult
from sae_lens_contrastive.unlearning.output import SettingResult
from sae_lens_contrastive.unlearning.saebench_output import saebench_output

SCHEMA = "evals/unlearning/eval_output_schema_unlearning.json"


@pytest.fixture
def schema():
    """The schema that SAEBench publishes in its package; its own code is not imported."""
    spec = importlib.util.find_spec("sae_bench")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("sae-bench is not installed")
    return json.loads((Path(spec.submodule_search_locations[0]) / SCHEMA).read_text())


def make_spec(**changes):
    values = {
        "model": "tiny-random-gemma-2",
        "forget_domain": "cities",
        "forget_questions": ["forget.jsonl"],
        "retain_questions": ["one.jsonl", "two.jsonl"],
        "forget_corpora": ["forget.txt"],
        "retain_corpora": ["retain.txt"],
        "context_size": 16,
        "max_corpus_tokens": 200,
        "batch_tokens": 64,
        "selectors": {"firing_rate": {"retain_threshold": [0.001, 0.5]}},
        "n_features": [1, 2],
        "interventions": {"clamp": {"multiplier": [25, 12.5]}},
    }
    return EvalSpec.model_validate({**values, **changes})


def make_result(spec):
    """A result with what the format needs of it."""
    frontier = [
        SettingResult.model_construct(
            selector=setting.selector.name,
            selector_options=setting.selector.options,
            n_features=setting.n_features,
            intervention=setting.intervention.name,
            intervention_options=setting.intervention.options,
            forget_accuracy=0.5,
        )
        for setting in spec.settings
    ]
    return UnlearningResult.model_construct(name="one", unlearning_score=0.5, features=[7], frontier=frontier)


def written(output):
    """What a reader of the file gets."""
    return json.loads(json.dumps(output, allow_nan=False))


def test_follows_the_published_schema(schema):
    spec = make_spec()
    local = SaeUnderTest(variant="planted", path=Path("sae"))
    released = SaeUnderTest(variant="planted", release="a-release", sae_id="layer_19")
    for subject in (local, released):
        output = written(saebench_output(make_result(spec), spec, subject, {"d_sae": 8}))
        jsonschema.validate(output, schema)
        assert set(output) <= set(schema["properties"])
        assert set(output["eval_config"]) == set(schema["$defs"]["UnlearningEvalConfig"]["properties"])


def test_the_schema_is_checked(schema):
    spec = make_spec()
    output = written(saebench_output(make_result(spec), spec, SaeUnderTest(variant="planted", path=Path("sae"))))
    output["eval_result_metrics"]["unlearning"]["unlearning_score"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(output, schema)


def test_says_what_was_run():
    spec = make_spec()
    before = time.time()
    result = make_result(spec)
    output = saebench_output(result, spec, SaeUnderTest(variant="planted", path=Path("sae")), {"d_sae": 8})
    assert output["eval_result_metrics"] == {"unlearning": {"unlearning_score": 0.5}}
    assert before * 1000 - 1 <= output["datetime_epoch_millis"] <= time.time() * 1000
    assert (output["sae_lens_release_id"], output["sae_lens_id"]) == ("one", "custom_sae")
    assert output["sae_cfg_dict"] == {"d_sae": 8}
    config = output["eval_config"]
    assert config["intervention_method"] == "clamp_feature_activation"
    assert config["dataset_names"] == ["forget.jsonl", "one.jsonl", "two.jsonl"]
    assert config["retain_thresholds"] == [0.001, 0.5]
    assert config["n_features_list"] == [1, 2]
    # The schema takes whole multipliers only; 12.5 stays in the whole result.
    assert config["multipliers"] == [25]
    assert (config["seq_len"], config["dataset_size"], config["llm_batch_size"]) == (16, 12, 4)
    whole = output["eval_result_unstructured"]
    assert whole["result"] == result.model_dump(mode="json")
    assert whole["result"]["features"] == [7]
    assert EvalSpec.model_validate(whole["spec"]) == spec


def test_what_saebench_lacks_is_named_by_our_name(schema):
    spec = make_spec(
        selectors={"activation_ratio": {"ratio_percentile": 95}},
        interventions={"clamp": {"multiplier": 20}, "zero": {}},
    )
    output = written(saebench_output(make_result(spec), spec, SaeUnderTest(variant="planted", path=Path("sae"))))
    jsonschema.validate(output, schema)
    config = output["eval_config"]
    assert (config["intervention_method"], config["retain_thresholds"]) == ("clamp, zero", [])
    assert config["multipliers"] == [20]


def test_options_that_are_left_out_have_their_defaults():
    spec = make_spec(selectors={"firing_rate": {}})
    output = saebench_output(make_result(spec), spec, SaeUnderTest(variant="planted", path=Path("sae")))
    assert output["eval_config"]["retain_thresholds"] == [0.01]


def test_two_results_have_two_ids():
    spec = make_spec()
    subject = SaeUnderTest(variant="planted", path=Path("sae"))
    ids = {saebench_output(make_result(spec), spec, subject)["eval_id"] for _ in range(2)}
    assert len(ids) == 2
