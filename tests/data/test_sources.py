import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from sae_lens.training.activations_store import ActivationsStore

from sae_lens_contrastive.data import hub_datasets, sources
from sae_lens_contrastive.data.hub_corpora import PIECE_CHARACTERS, HubCorpus
from sae_lens_contrastive.data.questions import split_of
from sae_lens_contrastive.data.sources import (
    check_corpus_sources,
    corpus_dataset,
    corpus_digest,
    corpus_file,
    held_out_entities,
    load_corpus_sources,
    load_question_sources,
    question_file,
    world_facts_domains,
)
from sae_lens_contrastive.errors import ConfigError, UserError


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


@pytest.mark.parametrize(
    ("source", "corpus"),
    [
        ("hub:monology/pile-uncopyrighted", HubCorpus("monology/pile-uncopyrighted")),
        ("hub:cais/wmdp-corpora#bio-retain-corpus", HubCorpus("cais/wmdp-corpora", "bio-retain-corpus")),
        (
            "hub:wikimedia/wikipedia#20231101.en@test:body",
            HubCorpus("wikimedia/wikipedia", "20231101.en", "test", "body"),
        ),
        ("hub:gsm8k:question", HubCorpus("gsm8k", column="question")),
    ],
)
def test_a_hub_source_names_dataset_configuration_split_and_column(source, corpus):
    assert HubCorpus.parse(source) == corpus


@pytest.mark.parametrize(
    "source", ["hub:", "hub:a/b/c", "hub:a b", "hub:a#", "hub:a@train#c", "hub:a@train[:10%]", "hub: a"]
)
def test_a_malformed_hub_source_is_refused_without_asking_the_hub(source, monkeypatch):
    monkeypatch.setattr(hub_datasets, "load_dataset", lambda *_args, **_kwargs: pytest.fail("the hub was asked"))
    with pytest.raises(ConfigError, match=r"is not of the form hub:NAME#CONFIG@SPLIT:COLUMN.*hub:cais/wmdp-corpora#"):
        check_corpus_sources([source])
    check_corpus_sources(["hub:a/b#c@d:e"])


@pytest.fixture
def local(tmp_path):
    path = tmp_path / "local.txt"
    path.write_text("\n\n".join(f"local {i}" for i in range(10)))
    return str(path)


def _texts(dataset):
    return [row["text"] for row in dataset]


def test_local_sources_make_a_shuffled_map_style_dataset(local):
    dataset = corpus_dataset([local], (), seed=1)
    assert isinstance(dataset, Dataset)
    assert sorted(_texts(dataset)) == [f"local {i}" for i in range(10)]
    assert _texts(dataset) == _texts(corpus_dataset([local], (), seed=1))
    assert _texts(dataset) != _texts(corpus_dataset([local], (), seed=2))


def test_a_hub_source_is_streamed_and_shuffled_by_the_seed(hub):
    dataset = corpus_dataset(["hub:a/b#c@d"], (), seed=1)
    assert hub.asked == [("a/b", "c", "d", True)]
    assert isinstance(dataset, IterableDataset)
    texts = _texts(dataset)
    assert sorted(texts) == sorted(f"text {i}" for i in range(20))
    assert all(set(row) == {"text"} for row in dataset)
    assert texts == _texts(corpus_dataset(["hub:a/b#c@d"], (), seed=1))
    assert texts != _texts(corpus_dataset(["hub:a/b#c@d"], (), seed=2))


def test_hub_and_local_sources_take_turns_and_the_shorter_begins_again(hub, local):
    hub.datasets["short"] = [{"text": f"short {i}"} for i in range(5)]
    texts = _texts(corpus_dataset(["hub:a/b", local, "hub:short"], (), seed=0))
    counts = Counter(text.split()[0] for text in texts)
    assert counts["text"] == 20
    assert min(counts.values()) >= 19
    assert set(texts) >= {f"local {i}" for i in range(10)} | {f"short {i}" for i in range(5)}


def test_long_documents_are_cut_at_white_space_and_lose_nothing_else(hub):
    words = [f"word{i}" for i in range(3000)]
    hub.datasets["a/b"] = [{"text": " ".join(words)}, {"text": "x" * (PIECE_CHARACTERS + 3)}, {"text": "  "}]
    pieces = _texts(HubCorpus("a/b").stream())
    assert max(map(len, pieces)) <= PIECE_CHARACTERS
    assert " ".join(pieces[:-2]).split() == words
    assert [len(piece) for piece in pieces[-2:]] == [PIECE_CHARACTERS, 3]


def test_text_of_the_hub_that_names_a_left_out_entity_stays_out(hub):
    hub.datasets["a/b"] = [
        {"text": t} for t in ("in Chad today", "CHAD, again", "Chadwick wrote", "Côte d'Ivoire's", "Oslo")
    ]
    assert _texts(HubCorpus("a/b").stream(["Chad", "Côte d'Ivoire"])) == ["Chadwick wrote", "Oslo"]


GATED = "Dataset 'a/b' is a gated dataset on the Hub. You must be authenticated to access it."
ASK = r"gated: ask for access at https://huggingface\.co/datasets/a/b, then run `hf auth login`"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (DatasetNotFoundError(GATED), ASK),
        (DatasetNotFoundError("'a/b' doesn't exist\nor"), r"could not be opened: 'a/b' doesn't exist\. Check its name"),
        (ValueError("Bad split: d. Available splits: ['train']"), r"Available splits: \['train'\]\. Check its name"),
        ([{"body": "x", "n": 1}], r"has no text in a column 'text'\. Columns with text: body\. Name one"),
        ([{"text": 1}], r"Columns with text: none"),
        ([], r"The split 'train' of the dataset 'a/b' holds no row"),
    ],
)
def test_what_is_wrong_with_a_hub_source_is_one_line(hub, rows, message):
    hub.datasets["a/b"] = rows
    with pytest.raises(UserError, match=message) as raised:
        corpus_dataset(["hub:a/b"], (), seed=0)
    assert "\n" not in str(raised.value)


def test_a_hub_that_does_not_answer_is_named_at_once(hub, monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("Name or service not known\nmore")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(
        UserError, match=r"'a/b' cannot be read, the .* hub does not answer: Name or service not known\. "
    ):
        corpus_dataset(["hub:a/b"], (), seed=0)
    assert hub.asked == []


def test_the_digest_is_of_the_bytes_of_a_file_and_of_the_name_on_the_hub(local):
    before = corpus_digest(local)
    assert before == hashlib.sha256(Path(local).read_bytes()).hexdigest()
    Path(local).write_text("something else")
    assert corpus_digest(local) != before
    assert corpus_digest("hub:a/b#c") == "hub:a/b#c"


def test_the_activation_store_takes_a_streamed_corpus(hub, tiny):
    hub.datasets["a/b"] = [{"text": "the kettle boils slowly " * 20} for _ in range(50)]
    store = ActivationsStore(
        model=tiny,
        dataset=corpus_dataset(["hub:a/b"], (), seed=0),
        streaming=True,
        hook_name="blocks.19.hook_resid_post",
        hook_head_index=None,
        context_size=16,
        d_in=32,
        n_batches_in_buffer=8,
        total_training_tokens=64,
        store_batch_size_prompts=4,
        train_batch_size_tokens=32,
        prepend_bos=True,
        normalize_activations="none",
        device="cpu",
        dtype="float32",
    )
    assert next(store).shape == (32, 32)
