"""What more GPUs would give, by hand, and what is said to break first."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def scale_tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import scale_tables

        yield scale_tables
    del sys.modules["scale_tables"]


def measured(machine, share):
    rows = {"SAELens": {"seconds": 0.5}, "all terms": {"ratio": 1.25}}
    trackers = {"all trackers": {"ratio": 1.0}}
    training = {"terms": {"rows": rows}, "trackers": {"rows": trackers}, "bound": {"share_of_matrix_peak": share}}
    return {
        "machine": machine,
        "generation": {"tokens_per_second": 8000.0, "share_of_matrix_peak": share},
        "training": [training],
        "gemma_2_2b": {
            "batch": 4000,
            "sae_parameters": 225_000_000,
            "generation_flops_per_token": 3e9,
            "step_flops_per_token": 4e9,
        },
    }


def test_figures_of_a_gpu_are_taken_as_they_are(scale_tables):
    # A batch takes 0.5 s of the model and 0.625 s of the step.
    rows = scale_tables.scaling(measured("NVIDIA H100, 16 cores", 0.1))[2:]
    assert rows[0] == "| 100M | 1 | 3,556 | 7.8 h | 25,000 | - |"
    # 7/8 of 900 MB go out and come back, at 450 GB/s: 3.5 ms a step.
    assert rows[1] == f"| 100M | 8 | {32000 / 1.1285:,.0f} | 59 min | 3,125 | - |"
    assert rows[2].endswith("| too few steps: under 2,500, the window in which a feature must fire |")
    assert rows[6].endswith("| 2,500,000 | time |")


@pytest.mark.parametrize(("share", "counted"), [(0.1, 0.1), (0.9, 0.35)])
def test_figures_of_a_cpu_give_shares_of_an_h100_up_to_what_is_assumed(scale_tables, share, counted):
    row = scale_tables.scaling(measured("CPU (x86_64)", share))[2]
    rate = counted * 989e12 / (3e9 + 1.25 * 4e9)
    assert row.startswith(f"| 100M | 1 | {rate:,.0f} |")


def test_gradients_between_machines_are_named_where_they_weigh(scale_tables):
    # At 35 % a batch takes 92 ms; 63/64 of 900 MB out and back at 50 GB/s take 35 ms.
    row = scale_tables.scaling(measured("CPU (x86_64)", 0.9))[2 + 5]
    assert row.endswith("| averaging gradients between machines, 28% of a step |")
