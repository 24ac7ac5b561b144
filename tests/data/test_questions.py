import json

import pytest

from sae_lens_contrastive.data.questions import Question, domains_of, load_questions, of_split, split_of
from sae_lens_contrastive.errors import UserError

RECORD = {
    "id": "countries/capital/france",
    "domain": "countries",
    "relation": "capital",
    "entity": "France",
    "stems": ["The capital of France is", "France's capital city is"],
    "answer": "Paris",
    "distractors": ["Rome", "Berlin", "Madrid"],
    "split": "select",
}


def _write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_record_becomes_a_question(tmp_path):
    (question,) = load_questions(_write(tmp_path / "q.jsonl", RECORD))
    assert question == Question(
        id="countries/capital/france",
        domain="countries",
        relation="capital",
        entity="France",
        stems=("The capital of France is", "France's capital city is"),
        answer="Paris",
        distractors=("Rome", "Berlin", "Madrid"),
        split="select",
    )
    assert question.chance == 0.25


def test_options_hold_each_answer_once_in_an_order_of_their_own(tmp_path):
    records = [{**RECORD, "id": f"q{i}"} for i in range(200)]
    questions = load_questions(_write(tmp_path / "q.jsonl", *records))
    for question in questions:
        assert sorted(question.options) == ["Berlin", "Madrid", "Paris", "Rome"]
        assert question.options[question.answer_index] == "Paris"
    places = [question.answer_index for question in questions]
    # 200 draws of 4 places: each is expected 50 times, with a standard deviation of 6.
    assert all(30 <= places.count(place) <= 70 for place in range(4))


def test_the_order_of_options_depends_on_the_id_alone_and_never_changes(tmp_path):
    reversed_record = {**RECORD, "distractors": RECORD["distractors"][::-1]}
    (question,) = load_questions(_write(tmp_path / "q.jsonl", {**RECORD, "id": "q1"}))
    (same,) = load_questions(_write(tmp_path / "r.jsonl", {**reversed_record, "id": "q1"}))
    assert question.options == same.options == ("Rome", "Berlin", "Madrid", "Paris")


@pytest.mark.parametrize(("entity", "split"), [("France", "select"), ("Germany", "select"), ("Italy", "held_out")])
def test_the_split_of_an_entity_never_changes(entity, split):
    # The committed questions carry these values: another hash would move entities between the halves.
    assert split_of(entity) == split
    assert split_of(entity.upper()) == split


def test_splits_are_halves():
    names = [f"entity {i}" for i in range(400)]
    # 400 fair coins: 200 expected, standard deviation 10.
    assert 160 <= sum(split_of(name) == "select" for name in names) <= 240


def test_of_split_and_domains_keep_the_order(tmp_path):
    records = [
        {**RECORD, "id": "1", "domain": "b", "split": "held_out"},
        {**RECORD, "id": "2", "domain": "a"},
        {**RECORD, "id": "3", "domain": "b"},
    ]
    questions = load_questions(_write(tmp_path / "q.jsonl", *records))
    assert [question.id for question in of_split(questions, "select")] == ["2", "3"]
    assert domains_of(questions) == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asnwer": "Paris"}, r"unknown field 'asnwer'\. Allowed: id, domain, relation"),
        ({"answer": None}, r"'answer' must be a non-empty string, got None"),
        ({"entity": " "}, r"'entity' must be a non-empty string, got ' '"),
        ({"stems": "The capital"}, r"'stems' must be a non-empty list of non-empty strings, got 'The capital'"),
        ({"stems": []}, r"'stems' must be a non-empty list"),
        ({"distractors": ["Rome", 3]}, r"'distractors' must be a non-empty list of non-empty strings"),
        ({"distractors": ["Rome", "Paris"]}, r".* must be distinct and differ from the answer 'Paris'"),
        ({"distractors": ["Rome", "Rome"]}, r".* must be distinct"),
        ({"split": "train"}, r"'split' is 'train'\. Allowed: select, held_out"),
        ({"split": ["select"]}, r"'split' is \['select'\]\. Allowed: select, held_out"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, change, message):
    path = _write(tmp_path / "q.jsonl", RECORD, {**RECORD, "id": "second", **change})
    with pytest.raises(UserError, match=r"q\.jsonl, line 2: " + message):
        load_questions(path)


@pytest.mark.parametrize("field", list(RECORD))
def test_every_field_is_needed(tmp_path, field):
    record = {key: value for key, value in RECORD.items() if key != field}
    with pytest.raises(UserError, match=rf"line 1: field '{field}' is missing\. Needed: id, domain"):
        load_questions(_write(tmp_path / "q.jsonl", record))


def test_ids_are_unique(tmp_path):
    with pytest.raises(UserError, match=r"line 2: id 'countries/capital/france' appears twice"):
        load_questions(_write(tmp_path / "q.jsonl", RECORD, RECORD))


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"q\.jsonl holds no question"):
        load_questions(_write(tmp_path / "q.jsonl"))
