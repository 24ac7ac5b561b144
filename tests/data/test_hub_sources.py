"""Questions and whole documents from the hub, to evaluate on."""

import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi

from sae_lens_contrastive.data import hub_datasets
from sae_lens_contrastive.data.hub_questions import HubQuestions
from sae_lens_contrastive.data.questions import Question, split_of
from sae_lens_contrastive.data.sources import held_out_entities, load_corpus_sources, load_question_sources
from sae_lens_contrastive.errors import ConfigError, UserError

ROW = {"question": "Which?", "choices": ["one", "two", "one", "four"], "answer": 3, "subject": "s"}


def test_a_hub_set_becomes_questions_in_published_order(hub):
    hub.datasets["cais/mmlu"] = [ROW, {**ROW, "answer": 0}]
    first, second = load_question_sources(["hub:cais/mmlu#high_school_geography@dev"])
    assert hub.asked == [("cais/mmlu", "high_school_geography", "dev", True)]
    name = "cais/mmlu#high_school_geography@dev/0"
    assert first == Question(
        id=name,
        domain="high_school_geography",
        relation="question",
        entity=name,
        stems=("Which?",),
        options=("one", "two", "one", "four"),
        answer_index=3,
        split=split_of(name),
    )
    assert (second.id, second.answer_index) == ("cais/mmlu#high_school_geography@dev/1", 0)


def test_the_test_split_of_the_default_configuration_is_read_and_the_set_names_the_domain(hub):
    hub.datasets["cais/wmdp"] = [ROW]
    (question,) = load_question_sources(["hub:cais/wmdp"])
    assert hub.asked == [("cais/wmdp", None, "test", True)]
    assert (question.id, question.domain) == ("cais/wmdp@test/0", "wmdp")


def test_questions_of_hub_and_files_stand_side_by_side(hub, tmp_path):
    hub.datasets["cais/wmdp"] = [ROW]
    (tmp_path / "biology_test.csv").write_text("question,choice0,choice1,answer\nq,a,b,0\n")
    questions = load_question_sources(["hub:cais/wmdp#wmdp-bio", str(tmp_path / "biology_test.csv")])
    assert [question.domain for question in questions] == ["wmdp-bio", "biology"]
    assert len(load_question_sources(["world_facts/plurals", "hub:cais/wmdp#wmdp-bio"])) > 100


def test_published_questions_name_no_entity_that_text_could_be_about(hub):
    hub.datasets["cais/wmdp"] = [ROW] * 20
    questions = load_question_sources(["hub:cais/wmdp"])
    assert {question.split for question in questions} == {"select", "held_out"}
    assert held_out_entities(questions) == []


@pytest.mark.parametrize("source", ["hub:", "hub:a/b/c", "hub:a/b@test:question", "hub:a#"])
def test_a_malformed_question_source_is_refused_without_asking_the_hub(source, monkeypatch):
    monkeypatch.setattr(hub_datasets, "load_dataset", lambda *_args, **_kwargs: pytest.fail("the hub was asked"))
    with pytest.raises(ConfigError, match=r"is not of the form hub:NAME#CONFIG@SPLIT\. .*hub:cais/mmlu#high_school"):
        HubQuestions.parse(source)


def broken(rows):
    """Rows that end in a lost connection, when they are read the second time."""

    class Rows:
        times = 0

        def __iter__(self):
            self.times += 1
            yield from rows
            if self.times > 1:
                raise ConnectionError("connection reset\nmore")

    return Rows()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            DatasetNotFoundError("'a/b' is a gated dataset"),
            r"gated: ask for access at https://huggingface\.co/datasets/a/b",
        ),
        (ValueError("Bad split: test. Available splits: ['train']"), r"Available splits: \['train'\]\. Check its name"),
        ([], r"The split 'test' of the dataset 'a/b' holds no row"),
        ([{"question": "q", "options": []}], r"has no column 'choices'\. Needed: question, choices, answer; it has "),
        ([ROW, {**ROW, "answer": 7}], r"a/b@test, row 1: 'answer' is 7\. Allowed: the index of a choice, 0 to 3"),
    ],
)
def test_what_is_wrong_with_a_hub_set_is_one_line(hub, rows, message):
    hub.datasets["a/b"] = rows
    with pytest.raises(UserError, match=message) as raised:
        load_question_sources(["hub:a/b"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [load_question_sources, lambda sources: load_corpus_sources(sources, (), 100)])
def test_a_hub_that_does_not_answer_is_named_before_anything_is_read(hub, monkeypatch, read):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(UserError, match=r"'a/b' cannot be read, the .* hub does not answer: Name or service not known"):
        read(["hub:a/b"])
    assert hub.asked == []


@pytest.mark.parametrize("read", [load_question_sources, lambda sources: load_corpus_sources(sources, (), 10**6)])
def test_a_hub_that_stops_answering_is_one_line(monkeypatch, read):
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_kwargs: None)
    rows = broken([{**ROW, "text": "t"}])
    monkeypatch.setattr(hub_datasets, "load_dataset", lambda *_args, **_kwargs: rows)
    with pytest.raises(UserError, match=r"Reading the dataset 'a/b' stopped: connection reset\. Try again"):
        read(["hub:a/b"])


def test_the_first_whole_documents_are_taken_until_there_are_characters_enough(hub):
    hub.datasets["a/b"] = [{"text": text} for text in ("x" * 9000, " \n", " Rome y", "Oslo", "zz", "w")]
    documents = load_corpus_sources(["hub:a/b#papers"], ["oslo"], max_characters=9008)
    assert [(d.id, d.domain, d.entities, d.text) for d in documents] == [
        ("a/b#papers@train/0", "papers", None, "x" * 9000),
        ("a/b#papers@train/2", "papers", None, " Rome y"),
        ("a/b#papers@train/4", "papers", None, "zz"),
    ]
    assert [d.text for d in load_corpus_sources(["hub:a/b"], (), max_characters=1)] == ["x" * 9000]


def test_every_hub_source_has_its_own_share_and_files_are_read_whole(hub, tmp_path):
    hub.datasets |= {name: [{"text": f"{name} {i}"} for i in range(9)] for name in ("a/b", "c/d")}
    (tmp_path / "own.txt").write_text("\n\n".join("efgh"))
    texts = [d.text for d in load_corpus_sources(["hub:a/b", str(tmp_path / "own.txt"), "hub:c/d"], (), 10)]
    assert texts == ["a/b 0", "a/b 1", "e", "f", "g", "h", "c/d 0", "c/d 1"]


def test_a_hub_corpus_is_refused_where_nothing_says_how_much_of_it_is_wanted():
    with pytest.raises(UserError, match=r"'hub:a/b' is streamed from the hub, without an end\. Give a file here"):
        load_corpus_sources(["hub:a/b"])


def test_a_corpus_without_text_in_its_column_names_the_others(hub):
    hub.datasets["a/b"] = [{"body": "x"}]
    with pytest.raises(ConfigError, match=r"no text in a column 'text'\. Columns with text: body"):
        load_corpus_sources(["hub:a/b"], (), 10)
