"""The grouping part: what it samples, when it groups, what it records, and how it resumes."""

from types import SimpleNamespace

import pytest
import torch

from sae_lens_contrastive.features.grouping import GroupingOptions
from sae_lens_contrastive.training.parts.base import FeatureState, StepView
from sae_lens_contrastive.training.parts.grouping import GroupingPart

D_SAE, BATCH = 24, 64
FIRST, SECOND = [[0, 1, 2, 3], [4, 5, 6]], [[0, 1], [2, 3], [4, 5, 6], [7, 8]]


def batch(groups, step):
    """Each token has one pattern; the features of a group share theirs, all others have their own."""
    generator = torch.Generator().manual_seed(step)
    pattern = torch.arange(D_SAE)
    for group in groups:
        pattern[group] = group[0]
    fires = torch.randint(0, D_SAE, (BATCH, 1), generator=generator) == pattern
    strength = torch.rand(BATCH, 1, generator=generator) + 0.5
    return fires * (strength + 0.05 * torch.rand(BATCH, D_SAE, generator=generator))


def step_on(part, features, step, acts):
    output = SimpleNamespace(feature_acts=acts)
    part.after_step(StepView(step, None, None, output, None, torch.zeros(D_SAE), torch.zeros(D_SAE), features, 0))  # pyright: ignore


def new(**options):
    part = GroupingPart(
        GroupingOptions(**{"every_n_steps": 4, "window_tokens": 256, "percentile": 0, **options}), D_SAE
    )
    return part, FeatureState(*(torch.zeros(D_SAE, dtype=torch.bool) for _ in range(2)))


def run(part, features, steps):
    for step in steps:
        step_on(part, features, step, batch(FIRST if step < 4 else SECOND, step))


def listed(features):
    return [sorted(group.tolist()) for group in features.groups.groups]


def test_groups_are_formed_when_they_are_due():
    part, features = new()
    run(part, features, range(3))
    assert features.groups is None
    assert part.metrics(features) == {}
    run(part, features, [3])
    assert listed(features) == FIRST
    run(part, features, range(4, 7))
    assert listed(features) == FIRST
    run(part, features, [7])
    assert listed(features) == [[4, 5, 6], [0, 1], [2, 3], [7, 8]]
    assert part.metrics(features) == {"n_groups": 4.0, "correlation_threshold": features.groups.threshold}


def test_what_is_recorded():
    part, features = new()
    run(part, features, range(8))
    first, second = part.records
    counts = {key: first[key] for key in ("step", "method", "n_groups", "largest_group", "n_grouped", "n_fired")}
    assert counts == {
        "step": 3, "method": "threshold", "n_groups": 2, "largest_group": 4, "n_grouped": 7, "n_fired": D_SAE,
    }  # fmt: skip
    assert first["sizes"] == [4, 3]
    assert first["clusters"] is None
    # Features fire together only within the planted groups.
    assert 0.9 < first["threshold"] <= first["p50"] <= first["p75"] <= first["p85"] <= first["p95"] <= first["p99"] <= 1
    change = dict(second["clusters"])
    # 0-3 is now 0-1, which continues it, and 2-3.
    assert 0 < change.pop("adjusted_rand_index") < 1
    assert change == {"n_kept": 2, "n_split": 1, "n_merged": 0, "n_born": 1, "n_died": 0, "n_moved": 2}


def test_the_hierarchical_method():
    part, features = new(method="hierarchical", n_clusters=19)
    run(part, features, range(4))
    assert listed(features) == FIRST
    assert part.records[0]["method"] == "hierarchical"


@pytest.mark.parametrize("n_tokens", [3, 10, 4 * BATCH])
def test_the_window_is_spread_evenly_over_the_steps(n_tokens):
    part, features = new(window_tokens=n_tokens)
    sampled = [0]
    for step in range(3):
        # The only active feature tells the step.
        step_on(part, features, step, torch.full((BATCH, D_SAE), 0.0).index_fill(1, torch.tensor(step), 1.0))
        sampled.append(len(part.state_dict()["window_n_active"]))
    assert sampled == [n_tokens * step // 4 for step in range(4)]
    of_each_step = part.state_dict()["window_features"].bincount(minlength=3)
    assert of_each_step.cumsum(0).tolist() == sampled[1:]


def test_groups_stay_when_nothing_fires_together():
    part, features = new()
    run(part, features, range(4))
    for step in range(4, 8):
        step_on(part, features, step, torch.zeros(BATCH, D_SAE))
    assert listed(features) == FIRST
    assert len(part.records) == 1


@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_resumed_run_is_the_uninterrupted_one(at):
    whole, whole_features = new()
    run(whole, whole_features, range(12))
    part, features = new()
    run(part, features, range(at))
    again, again_features = new()
    again.load_state_dict({name: tensor.clone() for name, tensor in part.state_dict().items()})
    again_features.load_state_dict(features.state_dict())
    run(again, again_features, range(at, 12))
    assert part.records + again.records == whole.records
    assert all(
        torch.equal(a, b) for a, b in zip(again_features.groups.groups, whole_features.groups.groups, strict=True)
    )
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in again.state_dict().items())
