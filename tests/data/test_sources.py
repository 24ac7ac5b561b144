import json

import pytest

from sae_lens_contrastive.data import sources
from sae_lens_contrastive.data.questions import split_of
from sae_lens_contrastive.data.sources import (
    corpus_file,
    held_out_entities,
    load_corpus_sources,
    load_question_sources,
    question_file,
    world_facts_domains,
)
from sae_lens_contrastive.errors import UserError


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """A stand-in for the embedded benchmark, with two domains and general text."""
    questions, corpora = tmp_path / "facts" / "questions", tmp_path / "facts" / "corpora"
    questions.mkdir(parents=True)
    corpora.mkdir()
    for domain in ("cities", "metals"):
        record = {
            "id": f"{domain}/r/x",
            "domain": domain,
            "relation": "r",
            "entity": f"{domain} x",
            "stems": ["s"],
            "answer": "a",
            "distractors": ["b"],
            "split": "held_out" if domain == "cities" else "select",
        }
        (questions / f"{domain}.jsonl").write_text(json.dumps(record))
    for name in ("cities", "general"):
        (corpora / f"{name}.jsonl.gz").write_bytes(b"")
    monkeypatch.setattr(sources, "world_facts_folder", lambda: tmp_path / "facts")
    return tmp_path


def test_names_of_the_benchmark_are_its_files(benchmark):
    assert world_facts_domains() == ["cities", "metals"]
    assert question_file("world_facts/cities") == benchmark / "facts" / "questions" / "cities.jsonl"
    assert corpus_file("world_facts/general") == benchmark / "facts" / "corpora" / "general.jsonl.gz"


def test_several_sources_are_read_in_order(benchmark):
    assert [q.domain for q in load_question_sources(["world_facts/metals", "world_facts/cities"])] == [
        "metals",
        "cities",
    ]


def test_an_unknown_domain_gets_the_nearest_one(benchmark):
    with pytest.raises(
        UserError, match=r"Unknown domain 'citys'\. Did you mean 'cities'\? Allowed: cities, metals\. Or give"
    ):
        question_file("world_facts/citys")
    with pytest.raises(UserError, match=r"Unknown corpus 'metals'.*Allowed: cities, general\. Or give the path"):
        corpus_file("world_facts/metals")


@pytest.mark.parametrize(("find", "kind"), [(question_file, "question file"), (corpus_file, "corpus")])
def test_a_path_is_taken_as_it_is(benchmark, find, kind):
    own = benchmark / "own.jsonl"
    with pytest.raises(UserError, match=rf"No {kind} at '.*own\.jsonl'.*world_facts/NAME with NAME one of "):
        find(str(own))
    own.write_text("{}")
    assert find(str(own)) == own


def test_documents_about_left_out_entities_are_not_read_and_something_must_remain(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a", "entities": ["Rome"]}\n{"text": "b", "entities": ["Oslo"]}\n')
    assert [d.text for d in load_corpus_sources([str(path)], ["rome"])] == ["b"]
    assert [d.text for d in load_corpus_sources([str(path), str(path)])] == ["a", "b", "a", "b"]
    with pytest.raises(UserError, match=r"Every document of .*c\.jsonl names one of the 2 entities left out"):
        load_corpus_sources([str(path)], ["Rome", "Oslo"])


def test_held_out_entities_are_those_of_held_out_questions(benchmark):
    assert held_out_entities(load_question_sources(["world_facts/cities", "world_facts/metals"])) == ["cities x"]


@pytest.mark.parametrize("domain", world_facts_domains())
def test_the_embedded_questions_are_well_formed_and_split_by_entity(domain):
    questions = load_question_sources([f"world_facts/{domain}"])
    assert {question.domain for question in questions} == {domain}
    assert [q.id for q in questions if q.split != split_of(q.entity)] == []
    assert {question.split for question in questions} == {"select", "held_out"}
