"""Whatever is in a file, a loader returns or says what is wrong; and merging configurations keeps its laws."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import SEEDS, TARGETS

from sae_lens_contrastive.config import load_yaml, merge, parse_overrides
from sae_lens_contrastive.data.questions import load_questions
from sae_lens_contrastive.report.saved_rows import checked_rows

MANY = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(TEXT, v, max_size=4))
KEYS = st.sampled_from(
    [
        *("id", "text", "entities", "domain", "question", "choices", "answer", "stems", "split", "variant", "seed"),
        *("step", "model", "training", "sae", "corpora", "settings", "seeds", "architecture", "d_in", "d_sae", "dtype"),
    ]
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=9)
LEAVES = st.dictionaries(st.sampled_from("abc"), SCALARS)
MAPPINGS = st.fixed_dictionaries({}, optional={"a": SCALARS, "b": LEAVES, "c": st.dictionaries(st.just("d"), LEAVES)})


@pytest.mark.parametrize("target", TARGETS)
@MANY
@given(
    content=st.binary(max_size=200)
    | RECORDS.map(lambda r: json.dumps(r).encode())
    | RECORDS.map(lambda r: b"[%s]" % json.dumps(r).encode())
)
def test_any_content_is_read_or_refused(target, content):
    TARGETS[target](content)


@pytest.mark.parametrize("path", sorted(SEEDS.rglob("*.*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_the_fuzzer_knows_is_read_or_refused(path):
    TARGETS[path.parent.name](path.read_bytes())


@MANY
@given(a=MAPPINGS, b=MAPPINGS, c=MAPPINGS)
def test_merging_layers_of_one_shape_is_associative_and_has_a_neutral_element(a, b, c):
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(a, b, c)
    assert merge(a, {}) == merge({}, a) == merge(a, a) == a


def test_a_value_in_place_of_a_mapping_takes_it_away_for_later_layers():
    assert merge({"a": {"b": 1}}, {"a": None}, {"a": {"c": 2}}) == {"a": {"c": 2}}


@MANY
@given(values=st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1))
def test_json_is_read_as_yaml(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_text(json.dumps(values))
    assert load_yaml(path) == values
    key, value = next(iter(values.items()))
    assert parse_overrides([f"{key}.x={json.dumps(value)}"]) == {key: {"x": value}}


TEXTS = st.text(min_size=1, max_size=12).filter(str.strip)


@MANY
@given(options=st.lists(TEXTS, min_size=2, max_size=5, unique=True), stems=st.lists(TEXTS, min_size=1, max_size=3))
def test_a_question_is_read_as_it_was_written(options, stems, tmp_path_factory):
    names = dict.fromkeys(("id", "domain", "relation", "entity"), "x")
    record = {**names, "stems": stems, "answer": options[0], "distractors": options[1:], "split": "select"}
    path = tmp_path_factory.mktemp("questions") / "a.jsonl"
    path.write_text(json.dumps(record) + "\n")
    (question,) = load_questions(path)
    assert (question.stems, question.answer) == (tuple(stems), options[0])
    assert sorted(question.options) == sorted(options)


@MANY
@given(
    score=st.floats(0, 1),
    seed=st.integers(0, 2**40),
    name=TEXT,
)
def test_a_row_that_an_evaluation_could_write_is_taken(score, seed, name, tmp_path_factory):
    held_out = {
        "forget_accuracy": score,
        "chance": 0.25,
        "forgetting": score,
        "retain_accuracy": 1.0,
        "ci95": [0.0, 1.0],
    }
    row = {"variant": name, "seed": seed, "forget_domain": name, "unlearning_score": score, "held_out": held_out}
    assert checked_rows([{**row, "cause_of_zero": None}], tmp_path_factory.getbasetemp()) == [
        {**row, "cause_of_zero": None}
    ]
