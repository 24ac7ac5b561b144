from pathlib import Path

import pytest

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.data.sources import world_facts_domains
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.spec import EvalSpec, check_spec


def parse(spec, **changes):
    return parse_config(EvalSpec, {**spec.model_dump(), **changes}, "spec.yaml")


def test_a_spec_survives_its_own_dump(spec):
    assert parse(spec) == spec


def test_null_takes_a_selector_or_an_intervention_out(spec):
    changed = parse(spec, selectors={"firing_rate": None, "importance": {}}, interventions={"clamp": None, "zero": {}})
    assert [(setting.selector.name, setting.intervention.name) for setting in changed.settings] == [
        ("importance", "zero"),
        ("importance", "zero"),
    ]
    with pytest.raises(UserError, match="Name at least one"):
        parse(spec, interventions={"clamp": None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selectors": {"firing_rate": {"retain_threshold": [0.0]}}}, "retain_threshold"),
        ({"selectors": {"firing_rate": {"retain_threshold": [0.1, 1.5]}}}, "retain_threshold is 1.5"),
        ({"selectors": {"firing_rate": {"retain_threshold": float("nan")}}}, "retain_threshold"),
        ({"selectors": {"firing_rate": {"retain_threshold": []}}}, "retain_threshold is an empty list"),
        ({"selectors": {"firing_rate": {"threshold": 0.1}}}, "retain_threshold"),
        ({"selectors": {"firingrate": {}}}, "Did you mean 'firing_rate'"),
        ({"selectors": {}}, "Name at least one"),
        ({"n_features": [0]}, "n_features"),
        ({"n_features": [5, 5]}, "repeats a value"),
        ({"interventions": {"clamp": {"multiplier": [-1.0]}}}, "multiplier"),
        ({"interventions": {"clamp": {"multiplier": [float("inf")]}}}, "finite"),
        ({"interventions": {"clamp": {"multiplier": [5, 5]}}}, "repeats a value"),
        ({"interventions": {"clamp": {}}}, "needs the key 'multiplier'"),
        ({"retain_gate": 0}, "retain_gate"),
        ({"forget_questions": []}, "forget_questions"),
        ({"retain_corpora": []}, "retain_corpora"),
        ({"context_size": 1}, "context_size"),
        ({"max_questions": 0}, "max_questions"),
        ({"interventions": {"clmp": {}}}, "Did you mean 'clamp'"),
        ({"retain_gat": 1}, "Did you mean 'retain_gate'"),
        ({"prompt": {"stile": "letter"}}, "Did you mean 'prompt.style'"),
    ],
)
def test_wrong_values_name_the_key(spec, changes, message):
    with pytest.raises(UserError, match=message):
        parse(spec, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"device": "tpu9"}, "tpu9"),
        ({"device": "mps"}, r"device: mps has no float64, in which an evaluation sums\. Use device: cpu"),
        ({"forget_questions": ["nowhere.jsonl"]}, "nowhere.jsonl"),
        ({"retain_corpora": ["nowhere.txt"]}, "nowhere.txt"),
    ],
)
def test_names_are_checked_without_a_model(spec, changes, message):
    with pytest.raises(UserError, match=message):
        check_spec(parse(spec, **changes))


def test_a_malformed_question_file_is_found(spec, files):
    (files / "forget.jsonl").write_text('{"id": "x"}')
    with pytest.raises(UserError, match=r"forget\.jsonl, line 1"):
        check_spec(spec)


def test_a_question_on_both_sides_is_refused(files, make_spec):
    with pytest.raises(UserError, match="appears 2 times"):
        check_spec(make_spec(retain_questions=[str(files / "forget.jsonl")]))


def test_questions_are_chosen_per_split_by_seed(make_spec):
    everything = check_spec(make_spec())
    some = check_spec(make_spec(max_questions=3))
    again = check_spec(make_spec(max_questions=3))
    other = check_spec(make_spec(max_questions=3, seed=1))
    assert some == again
    assert some.forget_questions != other.forget_questions
    for split in ("select", "held_out"):
        assert len(some.forget_questions[split]) == len(some.retain_questions[split]) == 3
        in_order = [q for q in everything.retain_questions[split] if q in some.retain_questions[split]]
        assert in_order == some.retain_questions[split]
        assert {q.split for q in some.forget_questions[split]} == {split}


def test_held_out_entities_leave_the_corpora(forget_questions, retain_questions, make_spec):
    inputs = check_spec(make_spec())
    assert len(inputs.forget_texts) == sum(q.split == "select" for q in forget_questions)
    assert len(inputs.retain_texts) == sum(q.split == "select" for q in retain_questions)


def test_domains_take_turns_in_the_corpus(files, make_spec):
    texts = {name: files / f"{name}.txt" for name in ("long", "short")}
    texts["long"].write_text("\n\n".join(f"L{i}" for i in range(6)))
    texts["short"].write_text("S0\n\nS1")
    inputs = check_spec(make_spec(retain_corpora=[str(path) for path in texts.values()]))
    assert [text[0] for text in inputs.retain_texts] == list("LSLSLLLL")
    assert sorted(inputs.retain_texts) == ["L0", "L1", "L2", "L3", "L4", "L5", "S0", "S1"]


def test_the_digest_follows_spec_and_content(files, make_spec):
    digest = check_spec(make_spec()).digest
    assert digest == check_spec(make_spec()).digest
    assert digest != check_spec(make_spec(seed=1)).digest
    corpus = files / "retain_corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("..", ",,"))
    assert digest != check_spec(make_spec()).digest


@pytest.mark.parametrize("name", ["world_facts_smollm2", "recipe_countries_smollm2", "world_facts_tiny"])
def test_the_shipped_specifications_are_valid(name):
    path = Path(__file__).parents[2] / "evals" / f"{name}.yaml"
    spec = parse_config(EvalSpec, load_yaml(path), str(path))
    inputs = check_spec(spec)
    assert inputs.forget_texts
    assert inputs.retain_texts
    if name in ("world_facts_smollm2", "recipe_countries_smollm2"):
        named = {*spec.forget_questions, *spec.retain_questions, *spec.near_questions}
        assert named == {f"world_facts/{domain}" for domain in world_facts_domains()}
        assert {*spec.retain_corpora} == {*spec.retain_questions, *spec.near_questions, "world_facts/general"}


def test_the_published_setting_is_valid_and_its_grid_is_saebenchs():
    path = Path(__file__).parents[2] / "evals" / "wmdp_bio_gemma_2_2b_it.yaml"
    spec = parse_config(EvalSpec, load_yaml(path), str(path))
    assert len(spec.settings) == 16
    assert (list(spec.selectors), list(spec.interventions), spec.n_features) == (["firing_rate"], ["clamp"], [10, 20])
    assert {setting.intervention.options["multiplier"] for setting in spec.settings} == {25, 50, 100, 200}
    assert (spec.corpus_reading, spec.edit_special_tokens, spec.prompt.n_orders) == ("packed", True, 24)
