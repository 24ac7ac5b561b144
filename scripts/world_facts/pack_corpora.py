"""Clean the sampled batches, tag them with entities, and write the corpora and their statistics into the package."""

from __future__ import annotations

import argparse
import gzip
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cleaning import kept_text
from names import DATA, read_facts
from tagging import Namer
from transformers import AutoTokenizer

from sae_lens_contrastive.data.corpora import Document
from sae_lens_contrastive.files import read_json, write_bytes_atomic, write_json


def keeps(domain: str, text: str, namer: Namer) -> bool:
    """General text that names a country, a capital or a nationality is not general."""
    return domain != "general" or not namer.named_in(text)


def documents_of(batches: list[list[dict[str, Any]]], domain: str, namer: Namer) -> list[Document]:
    """The documents worth keeping, in the order of the requests, each text once."""
    documents: dict[str, Document] = {}
    for answer in (answer for batch in batches for answer in batch):
        text = kept_text(answer["text"], answer["ended"])
        if text is None or not keeps(domain, text, namer):
            continue
        entities = set() if domain == "general" else namer.named_in(text) | {answer["entity"]}
        document = Document(id=answer["id"], domain=domain, entities=tuple(sorted(entities)), text=text)
        documents.setdefault(re.sub(r"\W+", " ", text).casefold(), document)
    return list(documents.values())


def stored_batches(folder: Path, domain: str) -> list[list[dict[str, Any]]]:
    """The finished batches of a domain, in order."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{domain}-[0-9]*.json"))]


def as_gzip(documents: list[Document]) -> bytes:
    """JSON lines, compressed without a time stamp so that the same text gives the same file."""
    lines = "".join(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in documents)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def statistics(documents: list[Document], answers: int, tokenizer: Any) -> dict[str, Any]:
    """Sizes of one corpus."""
    named = [set(document.entities or ()) for document in documents]
    return {
        "sampled": answers,
        "documents": len(documents),
        "tokens": sum(len(tokenizer(document.text)["input_ids"]) for document in documents),
        "characters": sum(len(document.text) for document in documents),
        "entities": len(set().union(*named)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of SmolLM2-135M-Instruct, for its tokenizer")
    parser.add_argument("batches", type=Path, help="folder that write_corpora.py wrote")
    parser.add_argument("--domains", nargs="*", help="default: all; the others keep their files")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    path = DATA / "corpora_stats.json"
    stats: dict[str, Any] = read_json(path) if path.exists() else {}
    for domain in args.domains or read_facts("targets"):
        batches = stored_batches(args.batches, domain)
        documents = documents_of(batches, domain, Namer(domain))
        write_bytes_atomic(DATA / "corpora" / f"{domain}.jsonl.gz", as_gzip(documents))
        stats[domain] = statistics(documents, sum(map(len, batches)), tokenizer)
        print(domain, stats[domain])
    write_json(path, {domain: stats[domain] for domain in read_facts("targets") if domain in stats})


if __name__ == "__main__":
    main()
