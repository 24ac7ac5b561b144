"""Correlation graph, clustering and trackers at the width of a 65k dictionary stay within 2 GiB of memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BUDGET_MIB = 2048
AT_SIZE = Path(__file__).parent / "trackers_at_size.py"

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux has it"
)


def peaks(method, d_sae, d_in, batch):
    arguments = [method, *map(str, (d_sae, d_in, batch))]
    child = subprocess.run([sys.executable, AT_SIZE, *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["n_groups"] > 0
    assert set(found["mib"]) == {"grouping", "importance", "stability"}
    return found["mib"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["threshold", "hierarchical"])
def test_trackers_of_65536_features_beside_gemmas_residual_stream_take_less_than_2_gib(method):
    found = peaks(method, d_sae=65_536, d_in=2304, batch=4096)
    assert max(found.values()) < BUDGET_MIB, found


def test_their_memory_does_not_grow_with_the_square_of_the_features():
    """One square matrix of 32-bit numbers over these features would take 1 GiB."""
    found = peaks("threshold", d_sae=16_384, d_in=64, batch=128)
    assert max(found.values()) < 512, found
