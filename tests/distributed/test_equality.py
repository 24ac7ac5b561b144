"""Ranks that each have a part of every batch end where one rank with the whole batch ends, and agree in everything."""

import pytest
import torch
from made_ranks import on_ranks
from made_trainings import made_trainer, train, train_all, train_from, train_until

from sae_lens_contrastive import ConfigError
from sae_lens_contrastive.distributed import BatchShare, batch_share

STEPS = 100


def assert_same(a, b, tolerance=0.0):
    """Equal in everything that is counted or chosen; numbers within the tolerance."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key], tolerance)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other, tolerance)
    elif isinstance(a, torch.Tensor) and a.is_floating_point():
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=10 * tolerance, abs=10 * tolerance)
    else:
        assert a == b


def check(cases, n, folder):
    alone, expected = train_all(cases)
    ranks = on_ranks(n, folder, train_all, cases)
    assert [alone, *(number for number, _ in ranks)] == [1, *[n] * n]
    for case, one, *of_ranks in zip(cases, expected, *(states for _, states in ranks), strict=True):
        for other in of_ranks[1:]:
            assert_same(of_ranks[0], other)
        first = of_ranks[0]
        for name, tensor in one["weights"].items():
            difference = (first["weights"][name] - tensor).abs().max()
            assert difference <= 1e-5, f"{case}: {name} differs by {difference}"
        for name in ("n_samples", "n_frac_active", "passes", "frequencies"):
            assert_same(one[name], first[name])
        assert_same(one["features"]["pruned"], first["features"]["pruned"])
        assert_same(one["history"], first["history"], 1e-4)
        for name in ("grouping", "pruning", "reinitialisation", "coverage", "curriculum"):
            assert_same(one["records"].get(name, []), first["records"].get(name, []), 1e-3)


def test_two_ranks_equal_one_with_all_terms_and_surgeries(tmp_path):
    check([("train", "topk", STEPS), ("train_white", "batchtopk", STEPS)], 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "batchtopk", "matryoshka_batchtopk"])
def test_two_ranks_equal_one_with_every_architecture(architecture, tmp_path):
    check([("train", architecture, STEPS), ("train_white", architecture, STEPS)], 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_three_ranks_divide_a_batch_that_three_does_not_divide(architecture, tmp_path):
    check([("train", architecture, STEPS, 97), ("train_white", architecture, STEPS, 97)], 3, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(before, after, tmp_path):
    whole = train("topk", STEPS, scaled=False)
    half = STEPS // 2
    if before == 1:
        train_until(tmp_path, half, "topk")
    else:
        on_ranks(before, tmp_path / "ranks", train_until, tmp_path, half, "topk")
    names = [path for path in tmp_path.iterdir() if path.name.startswith("final_")]
    more = tmp_path / "more"
    rest = [train_from(names[0], "topk")] if after == 1 else on_ranks(after, more, train_from, names[0], "topk")
    for state in rest:
        for name, tensor in whole["weights"].items():
            assert (state["weights"][name] - tensor).abs().max() <= 1e-5, name
        assert_same(whole["passes"], state["passes"])
        assert_same(whole["features"]["pruned"], state["features"]["pruned"])


def test_the_mechanisms_of_these_trainings_act():
    state = train("topk", STEPS)
    records = state["records"]
    assert sum(record["n_newly_pruned"] for record in records["pruning"]) > 5
    assert sum(record["n_reinitialised"] for record in records["reinitialisation"]) > 5
    assert sum(record["n_started"] for record in records["coverage"]) > 0
    assert records["grouping"][-1]["n_groups"] > 2
    assert [record["stage"] for record in records["curriculum"]] == ["reconstruct", "unlearn"]


def test_a_batch_is_divided_in_order_and_as_evenly_as_can_be(monkeypatch):
    share = BatchShare((0, 3, 6, 10))
    monkeypatch.setattr(batch_share, "rank", lambda: 1)
    assert (share.n_rows, share.sizes, share.own, share.weight) == (10, (3, 3, 4), slice(3, 6), 0.3)
    # Rows 0, 4 and 8 of 10.
    assert share.spaced(4).bounds == (0, 1, 2, 3)
    assert share.divided([0, 3, 5, 9]) == ([0, 2], [1, 2, 1])


def test_a_batch_smaller_than_the_ranks_is_refused(monkeypatch):
    monkeypatch.setattr(batch_share, "n_ranks", lambda: 4)
    with pytest.raises(ConfigError, match=r"3 tokens cannot be divided among 4 ranks. Raise train_batch_size_tokens"):
        BatchShare.of(3)


def test_with_one_rank_nothing_is_divided():
    assert BatchShare.of(8) is None
    trainer = made_trainer("topk")
    trainer.step(next(trainer.data_provider))
    assert trainer.sae.batch_context.share is None
