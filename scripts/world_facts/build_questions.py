"""Write the questions of every domain into the package."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from countries import country_questions
from making import Draft, Record, finish_questions
from names import DATA, read_facts
from word_domains import word_questions

from sae_lens_contrastive.files import write_bytes_atomic


def drafts_for(domain: str) -> list[Draft]:
    """The questions of one domain, without distractors."""
    return country_questions() if domain == "countries" else word_questions(domain)


def questions_for(domain: str) -> list[Record]:
    """The questions of one domain."""
    return finish_questions(drafts_for(domain), read_facts("priors"))


def as_jsonl(questions: list[Record]) -> bytes:
    """One record a line."""
    return "".join(json.dumps(asdict(q), ensure_ascii=False) + "\n" for q in questions).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", nargs="*", help="default: all")
    args = parser.parse_args()
    domains = [domain for domain in read_facts("targets") if domain != "general"]
    for domain in args.domains or domains:
        questions = questions_for(domain)
        write_bytes_atomic(DATA / "questions" / f"{domain}.jsonl", as_jsonl(questions))
        print(f"{domain}: {len(questions)} questions")


if __name__ == "__main__":
    main()
