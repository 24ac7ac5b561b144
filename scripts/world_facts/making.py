"""Make one question: its id, its distractors, its split."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from names import order_key, slug

from sae_lens_contrastive.data.questions import Split, split_of

N_DISTRACTORS = 3


@dataclass(frozen=True)
class Record:
    """A line of a question file: its fields and their order."""

    id: str
    domain: str
    relation: str
    entity: str
    stems: tuple[str, ...]
    answer: str
    distractors: tuple[str, ...]
    split: Split


def pick_distractors(
    key: str, answer: str, pools: Sequence[Iterable[str]], wrong: Collection[str] = ()
) -> tuple[str, ...] | None:
    """Three options from the first pool, then the next, in an order fixed by a hash of `key`.

    `wrong` holds what must not stand beside the answer: right too, or too close to it.
    None if the pools do not hold three.
    """
    barred = {option.casefold() for option in (answer, *wrong)}
    picked: list[str] = []
    for pool in pools:
        for option in sorted(set(pool), key=lambda option: order_key(key, option)):
            if option.casefold() not in barred and len(picked) < N_DISTRACTORS:
                picked.append(option)
                barred.add(option.casefold())
    return tuple(picked) if len(picked) == N_DISTRACTORS else None


def make_question(
    domain: str,
    relation: str,
    entity: str,
    stems: Iterable[str],
    answer: str,
    pools: Sequence[Iterable[str]],
    wrong: Collection[str] = (),
    about: str = "",
) -> Record | None:
    """The question, or None where there are too few distractors; `about` tells apart the questions of
    one relation about one entity (the city of "Lyon is a city in")."""
    name = f"{domain}/{relation}/{slug(entity)}" + (f"-{slug(about)}" if about else "")
    distractors = pick_distractors(name, answer, pools, wrong)
    if distractors is None:
        return None
    return Record(
        id=name, domain=domain, relation=relation, entity=entity, stems=tuple(stems), answer=answer,
        distractors=distractors, split=split_of(entity),
    )  # fmt: skip
