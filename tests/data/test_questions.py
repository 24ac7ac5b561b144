import gzip
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
    assert question == Question.with_distractors(
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
    assert question.answer == question.options[question.answer_index] == "Paris"
    assert set(question.distractors) == {"Rome", "Berlin", "Madrid"}


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


MMLU = (
    "question,choice0,choice1,choice2,choice3,answer\n"
    '"Two, or\n""three""?",Two,Three,Two,"Both, really",2\n'
    "Which letter?,A,B,C,D, b\n"
    "True?,yes,no,,,1\n"
)


def test_a_published_csv_keeps_its_order_and_names_its_rows(tmp_path):
    path = tmp_path / "high_school_geography_test.csv"
    path.write_text(MMLU, encoding="utf-8-sig")
    first, second, third = load_questions(path)
    name = "high_school_geography_test/0"
    assert first == Question(
        id=name,
        domain="high_school_geography",
        relation="question",
        entity=name,
        stems=('Two, or\n"three"?',),
        options=("Two", "Three", "Two", "Both, really"),
        answer_index=2,
        split=split_of(name),
    )
    # The option that reads like the answer is a distractor all the same.
    assert (first.answer, first.distractors) == ("Two", ("Two", "Three", "Both, really"))
    assert (second.answer_index, second.answer) == (1, "B")
    assert (third.options, third.answer, third.chance) == (("yes", "no"), "no", 0.5)


@pytest.mark.parametrize(("file", "domain"), [("own.jsonl", "own"), ("us_history_dev.jsonl.gz", "us_history")])
def test_published_records_are_read_by_index_or_letter_and_other_fields_ignored(tmp_path, file, domain):
    records = [
        {"question": "q", "choices": ["x", "y", " "], "answer": 1, "subject": "s"},
        {"question": " r ", "choices": ["x", "y"], "answer": "A"},
    ]
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    (tmp_path / file).write_bytes(gzip.compress(content) if file.endswith("gz") else content)
    first, second = load_questions(tmp_path / file)
    assert (first.options, first.answer, first.domain) == (("x", "y", " "), "y", domain)
    assert (second.stems, second.answer_index) == ((" r ",), 0)
    assert [first.id, second.id] == [f"{file.split('.')[0]}/{row}" for row in (0, 1)]


def test_published_questions_fall_into_both_splits(tmp_path):
    records = [{"question": "q", "choices": ["x", "y"], "answer": 0}] * 200
    questions = load_questions(_write(tmp_path / "q.jsonl", *records))
    # 200 fair coins: 100 expected, standard deviation 7.
    assert 70 <= len(of_split(questions, "select")) <= 130


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, r"'answer' is 4\. Allowed: the index of a choice, 0 to 3, or its letter, A to D\."),
        ({"answer": -1}, r"'answer' is -1\."),
        ({"answer": "E"}, r"'answer' is 'E'\."),
        ({"answer": ""}, r"'answer' is ''\."),
        ({"answer": True}, r"'answer' is True\."),
        ({"answer": None}, r"'answer' is None\."),
        ({"choices": ["x"]}, r"'choices' must be a list of at least two strings, got \['x'\]"),
        ({"choices": "xy"}, r"'choices' must be a list of at least two strings"),
        ({"choices": ["x", 1]}, r"'choices' must be a list of at least two strings"),
        ({"question": " "}, r"'question' must be a non-empty string, got ' '"),
    ],
)
def test_a_wrong_published_record_is_named_with_file_and_line(tmp_path, change, message):
    record = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    path = _write(tmp_path / "q.jsonl", record, {**record, **change})
    with pytest.raises(UserError, match=r"q\.jsonl, line 2: " + message):
        load_questions(path)


def test_a_published_record_without_answer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"line 1: field 'answer' is missing\. Needed: question, choices, answer"):
        load_questions(_write(tmp_path / "q.jsonl", {"question": "q", "choices": ["a", "b"]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", r"has the columns a, b\. Needed: question, choice0, choice1, \.\.\., answer"),
        ("question,choice0,choice2,answer\n", r"Needed: question, choice0, choice1"),
        ("", r"has the columns none"),
        ("question,choice0,choice1,answer\n", r"holds no question"),
        ("question,choice0,choice1,answer\nWhy, then?,a,b,1\n", r"line 2: more cells than columns\. Quote"),
        ("question,choice0,choice1,answer\nq,a,b\n", r"line 2: 'answer' is None"),
        ('question,choice0,choice1,answer\nq,"a,b,1\n', r"cannot be read as CSV: unexpected end of data"),
        (b"question,choice0,choice1,answer\n\xff,a,b,1\n", r"cannot be read as CSV: .*invalid start byte"),
    ],
)
def test_a_wrong_csv_is_named(tmp_path, content, message):
    path = tmp_path / "q.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"q\.csv.*" + message):
        load_questions(path)


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(UserError, match=r"No file at .*q\.csv\. Give the path of a \.csv file"):
        load_questions(tmp_path / "q.csv")
