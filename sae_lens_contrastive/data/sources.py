"""Where questions and corpora come from: the embedded benchmark, a file of one's own, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from datasets import Dataset, IterableDataset, interleave_datasets

from sae_lens_contrastive.data.corpora import Document, load_corpus, to_dataset, without_entities
from sae_lens_contrastive.data.hub_corpora import HubCorpus
from sae_lens_contrastive.data.hub_datasets import HUB_PREFIX
from sae_lens_contrastive.data.hub_questions import HubQuestions
from sae_lens_contrastive.data.questions import Question, load_questions, of_split
from sae_lens_contrastive.errors import UserError, unknown_choice
from sae_lens_contrastive.files import input_sha256

WORLD_FACTS = "world_facts"
SHUFFLE_BUFFER = 2000
"""Pieces of streamed text held and drawn from at random; the order of a dataset's files is shuffled as well."""


def world_facts_folder() -> Path:
    """Folder of the embedded benchmark inside the package."""
    return Path(str(files("sae_lens_contrastive.data"))) / WORLD_FACTS


def world_facts_domains() -> list[str]:
    """Domains of the embedded benchmark that have questions."""
    return sorted(path.name.removesuffix(".jsonl") for path in (world_facts_folder() / "questions").glob("*.jsonl"))


def question_file(source: str) -> Path:
    """File behind a question source, `world_facts/<domain>` or a path; `UserError` if there is none."""
    if (domain := _world_facts_name(source)) is None:
        return _existing(source, "question file")
    if domain not in world_facts_domains():
        raise unknown_choice("domain", domain, world_facts_domains(), fix="Or give the path of a .jsonl or .csv file.")
    return world_facts_folder() / "questions" / f"{domain}.jsonl"


def corpus_file(source: str) -> Path:
    """File behind a corpus source, `world_facts/<domain or general>` or a path; `UserError` if there is none."""
    if (name := _world_facts_name(source)) is None:
        return _existing(source, "corpus")
    folder = world_facts_folder() / "corpora"
    names = sorted(path.name.removesuffix(".jsonl.gz") for path in folder.glob("*.jsonl.gz"))
    if name not in names:
        raise unknown_choice("corpus", name, names, fix="Or give the path of a .jsonl, .jsonl.gz or .txt file.")
    return folder / f"{name}.jsonl.gz"


def load_question_sources(sources: Sequence[str]) -> list[Question]:
    """Questions of several sources, in order: `world_facts/<domain>`, files, and `hub:NAME#CONFIG@SPLIT`."""
    return [question for source in sources for question in _load_questions(source)]


def load_corpus_sources(
    sources: Sequence[str], left_out_entities: Sequence[str] = (), max_characters: int | None = None
) -> list[Document]:
    """Documents of several sources, in order, without those that name an entity of `left_out_entities`.

    Files are read whole; of each hub source the first documents, until `max_characters` are reached. Raises
    `UserError` for what cannot be read, a hub source without `max_characters`, and if nothing remains.
    """
    kept: list[Document] = []
    for source in sources:
        if not source.startswith(HUB_PREFIX):
            kept.extend(without_entities(load_corpus(corpus_file(source)), left_out_entities))
        elif max_characters is None:
            raise UserError(f"{source!r} is streamed from the hub, without an end. Give a file here.")
        else:
            kept.extend(HubCorpus.parse(source).documents(max_characters, left_out_entities))
    if not kept:
        raise UserError(
            f"Every document of {', '.join(sources)} names one of the {len(left_out_entities)} entities left out. "
            "Give a larger corpus or hold out the entities of fewer question sources."
        )
    return kept


def check_corpus_sources(sources: Sequence[str], left_out_entities: Sequence[str] = ()) -> None:
    """Raise `UserError` for local sources that cannot be read and malformed hub sources; asks no network."""
    local = [source for source in sources if not source.startswith(HUB_PREFIX)]
    if local:
        load_corpus_sources(local, left_out_entities)
    for source in set(sources) - set(local):
        HubCorpus.parse(source)


def corpus_dataset(sources: Sequence[str], left_out_entities: Sequence[str], seed: int) -> Dataset | IterableDataset:
    """Texts of several sources in a column `text`, shuffled by the seed, as SAELens' activation store takes them.

    Local sources alone make a map-style dataset of whole documents. With a hub source it is a stream: each hub source
    and the local ones together take turns, text by text, and begin again until the longest has been read once. Text
    that names an entity of `left_out_entities` stays out. Raises `UserError` for what cannot be read.
    """
    local = [source for source in sources if not source.startswith(HUB_PREFIX)]
    documents = to_dataset(load_corpus_sources(local, left_out_entities)).shuffle(seed=seed) if local else None
    hub = [HubCorpus.parse(source) for source in sources if source.startswith(HUB_PREFIX)]
    if documents is not None and not hub:
        return documents
    streams = [corpus.stream(left_out_entities) for corpus in hub]
    if documents is not None:
        streams.append(documents.to_iterable_dataset())
    mixed = streams[0] if len(streams) == 1 else interleave_datasets(streams, stopping_strategy="all_exhausted")
    return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)


def corpus_digest(source: str) -> str:
    """What a corpus holds, for fingerprints: the SHA-256 of a file's bytes, or a hub source as it is written."""
    if source.startswith(HUB_PREFIX):
        HubCorpus.parse(source)
        return source
    return input_sha256(corpus_file(source))


def held_out_entities(questions: Sequence[Question]) -> list[str]:
    """Entities of the held-out questions, as far as they have names; text about them stays out of training."""
    return sorted({question.entity for question in of_split(questions, "held_out") if question.entity != question.id})


def _load_questions(source: str) -> list[Question]:
    if source.startswith(HUB_PREFIX):
        return HubQuestions.parse(source).load()
    return load_questions(question_file(source))


def _world_facts_name(source: str) -> str | None:
    prefix, separator, name = source.partition("/")
    return name if separator and prefix == WORLD_FACTS else None


def _existing(source: str, kind: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise UserError(
            f"No {kind} at {source!r}. Give the path of an existing file, or {WORLD_FACTS}/NAME with NAME one of "
            f"{', '.join(world_facts_domains())}."
        )
    return path
