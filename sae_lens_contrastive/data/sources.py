"""Where questions and corpora come from: the embedded benchmark or a file of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from sae_lens_contrastive.data.corpora import Document, load_corpus, without_entities
from sae_lens_contrastive.data.questions import Question, load_questions, of_split
from sae_lens_contrastive.errors import UserError, unknown_choice

WORLD_FACTS = "world_facts"


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
        raise unknown_choice("domain", domain, world_facts_domains(), fix="Or give the path of a .jsonl file.")
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
    """Questions of several sources, in order."""
    return [question for source in sources for question in load_questions(question_file(source))]


def load_corpus_sources(sources: Sequence[str], left_out_entities: Sequence[str] = ()) -> list[Document]:
    """Documents of several sources, in order, without those that name an entity of `left_out_entities`.

    Raises `UserError` if nothing remains.
    """
    documents = [document for source in sources for document in load_corpus(corpus_file(source))]
    kept = without_entities(documents, left_out_entities) if left_out_entities else documents
    if not kept:
        raise UserError(
            f"Every document of {', '.join(sources)} names one of the {len(left_out_entities)} entities left out. "
            "Give a larger corpus or hold out the entities of fewer question sources."
        )
    return kept


def held_out_entities(questions: Sequence[Question]) -> list[str]:
    """Entities of the held-out questions; text about them stays out of training."""
    return sorted({question.entity for question in of_split(questions, "held_out")})


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
