"""Minutes of coverage-guided fuzzing of every loader; what breaks one is kept in `seeds/` and replayed ever after."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from targets import SEEDS, TARGETS

SECONDS = 60
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(10 * SECONDS)
@pytest.mark.skipif(find_spec("atheris") is None, reason="the extra 'fuzz' is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_that_is_found_in_a_minute_breaks_a_loader(target, tmp_path, record_property):
    found = tmp_path / "corpus"
    found.mkdir()
    options = [f"-max_total_time={SECONDS}", "-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1", "-seed=1"]
    command = [sys.executable, str(HERE / "fuzz.py"), target, str(found), str(SEEDS / target), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nKeep the input in {SEEDS / target}."
    tried = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    assert tried is not None
    record_property("fuzzed_inputs", int(tried[1]))
    record_property("fuzzed_seconds", SECONDS)
