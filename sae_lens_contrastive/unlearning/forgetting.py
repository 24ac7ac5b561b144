"""Accuracies on questions, and what they say about knowledge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from sae_lens_contrastive.data.questions import Question


def accuracy(right: Bool[Tensor, " n_known"]) -> float:
    """Share of questions answered right, exact: 1 means all of them."""
    return int(right.sum()) / len(right)


def mean_chance(questions: Sequence[Question]) -> float:
    """Accuracy of guessing: mean of 1 / number of options."""
    return sum(question.chance for question in questions) / len(questions)


def forgetting(accuracy: float, chance: float) -> float:
    """min(1, (known - accuracy) / (known - chance)) with known = 1: 0 is unchanged, 1 is chance or below."""
    return min(1.0, (1 - accuracy) / (1 - chance))


def bootstrap_ci95(
    questions: Sequence[Question], right: Sequence[bool], *, n_resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the accuracy, resampling entities: questions about one entity are not
    independent."""
    entities = {entity: i for i, entity in enumerate(dict.fromkeys(q.entity for q in questions))}
    counts, hits = np.zeros(len(entities)), np.zeros(len(entities))
    for question, is_right in zip(questions, right, strict=True):
        counts[entities[question.entity]] += 1
        hits[entities[question.entity]] += is_right
    drawn = np.random.default_rng(seed).integers(len(entities), size=(n_resamples, len(entities)))
    accuracies = hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(accuracies, [2.5, 97.5])
    return float(low), float(high)
