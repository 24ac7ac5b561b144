"""The benchmarks' tables at a tiny size: every row is there, and a schedule is the sum of its steps."""

import sys
from pathlib import Path

import pytest
import torch

EVALS = Path(__file__).parents[2] / "evals"


@pytest.fixture(scope="module")
def benches():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EVALS))
        import bench_setup
        import bench_training_step
        import roofline

        yield bench_setup, bench_training_step, roofline
    for name in ("bench_setup", "bench_training_step", "bench_measure", "roofline"):
        del sys.modules[name]


def test_a_table_of_loss_terms_has_all_but_those_that_run_the_model(benches):
    setup, step, _ = benches
    table = step.terms_table(setup.StepShape("topk", 64, d_in=16, batch=64, k=4), 1)
    assert list(table["rows"])[:2] == ["SAELens", "no terms"]
    assert set(table["rows"]) >= {"sentence_margin", "forget_margin", "supervised_contrastive", "all terms"}
    assert "output_kl" not in table["rows"]
    assert table["rows"]["SAELens"]["ratio"] == 1.0
    assert step.ratio(table, "all terms") > 0


def test_a_schedule_has_every_kind_of_step_and_each_tracker_acts(benches):
    setup, step, _ = benches
    table = step.trackers_table(setup.StepShape("topk", 64, d_in=16, batch=64, k=4), 1)
    assert table["rows"]["no trackers"]["ratio"] == 1.0
    assert set(table["parts"]) >= {"grouping", "importance", "pruning", "stability"}
    assert min(table["parts"][name] for name in ("grouping", "importance", "stability")) > 0


def test_what_bounds_a_step_is_the_slower_of_products_and_memory(benches):
    *_, roofline = benches
    peak = roofline.Peak(100.0, 10.0, 90.0, 9.0, "by hand")
    by_units = roofline.bound(roofline.Work(flops=200.0, bytes=10.0), 4.0, peak)
    assert (by_units["bound_by"], by_units["share_of_bound"], by_units["share_of_matrix_peak"]) == (
        "matrix units",
        0.5,
        0.5,
    )
    by_memory = roofline.bound(roofline.Work(flops=20.0, bytes=10.0), 4.0, peak)
    assert (by_memory["bound_by"], by_memory["share_of_bound"], by_memory["share_of_matrix_peak"]) == (
        "memory",
        0.25,
        0.05,
    )
    # 12 d_in d_sae a token; 7 tensors of batch x d_sae written and read; 15 passes over 2 d_in d_sae + d_in + d_sae.
    work = roofline.step_work(2, 3, 5)
    assert (work.flops, work.bytes) == (5 * 12 * 6, 14 * 15 * 4 + 15 * (12 + 5) * 4)


def test_a_peak_is_measured_where_no_data_sheet_is_known(benches):
    *_, roofline = benches
    peak = roofline.device_peak("cpu", torch.float32)
    assert peak.flops == peak.measured_flops > 0
    assert peak.bytes_per_second == peak.measured_bytes_per_second > 0
