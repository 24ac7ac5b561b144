"""Make questions: their ids, their splits, and distractors that are as likely as the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from names import order_key, slug

from sae_lens_contrastive.data.questions import Split, split_of

N_DISTRACTORS = 3
_NEAREST = 6
_RANK_SHARES = (0.19, 0.23, 0.29, 0.29)
"""Shares of questions whose answer is the likeliest of its four options, the second, the third, the last. With equal
shares the model knew 88, 72, 57 and 57 % of the questions about countries: these make known ones about equally many."""

Prior = Mapping[str, float]
"""Log-likelihood of each option of a relation after stems about others, in nats: what is said without knowing."""


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


@dataclass(frozen=True)
class Draft:
    """A question whose distractors are still to be drawn."""

    id: str
    domain: str
    relation: str
    entity: str
    stems: tuple[str, ...]
    answer: str
    pools: tuple[tuple[str, ...], ...]
    """Options that may stand beside the answer; those of the first pool are preferred."""

    @property
    def key(self) -> str:
        """The relation with its domain."""
        return f"{self.domain}/{self.relation}"

    @property
    def options(self) -> list[str]:
        """The answer and all that may stand beside it."""
        return [self.answer, *(option for pool in self.pools for option in pool)]

    def sides(self, prior: Prior) -> tuple[list[list[str]], list[list[str]]]:
        """The pools' options that are likelier than the answer, and the others; the nearest in likelihood first."""
        here = prior[self.answer]
        above, below = (
            [
                sorted((o for o in pool if (prior[o] > here) == likelier), key=lambda o: (abs(prior[o] - here), o))
                for pool in self.pools
            ]
            for likelier in (True, False)
        )
        return above, below

    def ranks(self, prior: Prior) -> list[int]:
        """Places that the answer can have among the four, the likeliest first; with the first pool if it has any."""
        above, below = self.sides(prior)
        for n_pools in range(1, len(self.pools) + 1):
            likelier, others = (sum(map(len, side[:n_pools])) for side in (above, below))
            if found := [r for r in range(N_DISTRACTORS + 1) if r <= likelier and N_DISTRACTORS - r <= others]:
                return found
        raise AssertionError(f"{self.id} has too few options")

    def finished(self, prior: Prior, rank: int) -> Record:
        """The question in which the answer is the `rank`-th likeliest option, 0 the likeliest."""
        above, below = self.sides(prior)
        likelier = _drawn(self.id, above, rank)
        distractors = likelier + _drawn(self.id, below, N_DISTRACTORS - rank)
        return Record(
            id=self.id, domain=self.domain, relation=self.relation, entity=self.entity, stems=self.stems,
            answer=self.answer, distractors=tuple(distractors), split=split_of(self.entity),
        )  # fmt: skip


def _drawn(key: str, pools: Sequence[Sequence[str]], n: int) -> list[str]:
    """`n` of the options nearest to the answer, in an order fixed by a hash of `key`; from the first pool if it can."""
    first = pools[0][: max(n, _NEAREST)]
    if len(first) >= n:
        return sorted(first, key=lambda option: order_key(key, option))[:n]
    return [option for pool in pools for option in pool][:n]


def draft_question(
    domain: str,
    relation: str,
    entity: str,
    stems: Iterable[str],
    answer: str,
    pools: Sequence[Iterable[str]],
    wrong: Collection[str] = (),
    about: str = "",
) -> Draft | None:
    """The question without its distractors, or None where there are too few of them.

    `wrong` holds what must not stand beside the answer: right too, or too close to it. `about` tells apart the
    questions of one relation about one entity (the city of "Lyon is a city in").
    """
    name = f"{domain}/{relation}/{slug(entity)}" + (f"-{slug(about)}" if about else "")
    barred = {option.casefold() for option in (answer, *wrong)}
    kept: list[tuple[str, ...]] = []
    for pool in pools:
        left = {option.casefold(): option for option in sorted(set(pool)) if option.casefold() not in barred}
        barred |= set(left)
        kept.append(tuple(left.values()))
    if sum(map(len, kept)) < N_DISTRACTORS:
        return None
    return Draft(name, domain, relation, entity, tuple(stems), answer, tuple(kept))


def finish_questions(drafts: Sequence[Draft], priors: Mapping[str, Prior]) -> list[Record]:
    """The questions with distractors such that the answers' ranks of likelihood have `_RANK_SHARES`.

    So a model that has lost all but what is likely in a relation answers one in four of the questions that it knew.
    `priors` holds the options' prior by relation. Questions with the fewest possible ranks choose first.
    """
    ranks: dict[str, int] = {}
    used: Counter[tuple[str, int]] = Counter()
    possible = {draft.id: draft.ranks(priors[draft.key]) for draft in drafts}
    for draft in sorted(drafts, key=lambda d: (len(possible[d.id]), order_key("rank", d.id))):
        free = sorted(possible[draft.id], key=lambda r: order_key("rank", draft.id, str(r)))
        ranks[draft.id] = min(free, key=lambda r: (used[draft.key, r] + 1) / _RANK_SHARES[r])
        used[draft.key, ranks[draft.id]] += 1
    return [draft.finished(priors[draft.key], ranks[draft.id]) for draft in drafts]
