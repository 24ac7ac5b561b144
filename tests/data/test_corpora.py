import gzip
import json

import pytest

from sae_lens_contrastive.data.corpora import Document, load_corpus, to_dataset, without_entities
from sae_lens_contrastive.errors import UserError


def test_records_become_documents_and_the_rest_has_defaults(tmp_path):
    path = tmp_path / "cities.jsonl.gz"
    records = [
        {"id": "a", "domain": "d", "entities": ["Rome"], "text": "Rome is old."},
        {"text": "Only text.", "source": "ignored"},
    ]
    path.write_bytes(gzip.compress("\n".join(json.dumps(record) for record in records).encode()))
    assert load_corpus(path) == [
        Document("a", "d", ("Rome",), "Rome is old."),
        Document("cities.jsonl.gz/2", "cities", None, "Only text."),
    ]


def test_plain_text_is_split_at_empty_lines(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("First line\nof the first.\n\n\n\n  Second. \n\n", encoding="utf-8")
    assert load_corpus(path) == [
        Document("notes/0", "notes", None, "First line\nof the first."),
        Document("notes/1", "notes", None, "Second."),
    ]


def test_documents_that_name_a_left_out_entity_go_whatever_the_case():
    documents = [
        Document("1", "d", ("Rome", "Paris"), "x"),
        Document("2", "d", ("OSLO",), "x"),
        Document("3", "d", (), "Oslo, but not declared"),
    ]
    assert [d.id for d in without_entities(documents, ["paris", "Oslo"])] == ["3"]
    assert without_entities(documents, []) == documents


def test_names_are_looked_for_in_text_without_a_list_of_them(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("From OSLO to Rome.\n\nA parisian in Osloer Strasse.\n\nParis.", encoding="utf-8")
    assert [d.id for d in without_entities(load_corpus(path), ["Oslo", "paris"])] == ["notes/1"]


def test_a_dataset_has_the_column_that_saelens_reads():
    dataset = to_dataset([Document("1", "d", (), "a"), Document("2", "d", (), "b")])
    assert dataset.column_names == ["text"]
    assert list(dataset["text"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "a"}, r"line 1: 'text' must be a non-empty string, got None"),
        ({"text": "  "}, r"line 1: 'text' must be a non-empty string, got '  '"),
        ({"text": ["a"]}, r"line 1: 'text' must be a non-empty string"),
        ({"text": "a", "entities": "Rome"}, r"line 1: 'entities' must be a list of strings, got 'Rome'"),
        ({"text": "a", "entities": [1]}, r"line 1: 'entities' must be a list of strings, got \[1\]"),
    ],
)
def test_a_wrong_record_is_named(tmp_path, record, message):
    (tmp_path / "c.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"c\.jsonl, " + message):
        load_corpus(tmp_path / "c.jsonl")


@pytest.mark.parametrize("name", ["c.jsonl", "c.txt"])
def test_an_empty_or_missing_corpus_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=rf"No file at .*{name}"):
        load_corpus(tmp_path / name)
    (tmp_path / name).write_text("\n \n")
    with pytest.raises(UserError, match=rf"{name} holds no document.*at least one text"):
        load_corpus(tmp_path / name)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "c.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(UserError, match=r"c\.txt is not UTF-8 text.*Convert it first"):
        load_corpus(tmp_path / "c.txt")
