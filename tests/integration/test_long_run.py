"""A training that goes on and on needs no more memory than it did at first."""

import shutil
import time
from pathlib import Path

import psutil
import pytest
from processes import started

ROOT = Path(__file__).parents[2]
SECONDS, WARM_UP, GROWTH = 3600, 900, 1.05


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.usefixtures("model_cache")
def test_resident_memory_is_flat_in_an_hour_of_training_with_everything_on(tmp_path, record_property):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    arguments = ["train", "configs/targets/tiny.yaml", "configs/variants/all_mechanisms.yaml", "--out", "out"]
    arguments += ["--set", "training.training_tokens=1_000_000_000", "--set", "training.n_checkpoints=1000"]
    process = started(arguments, tmp_path)
    began, measured = time.monotonic(), []
    while (elapsed := time.monotonic() - began) < SECONDS:
        process.join(5)
        assert process.is_alive(), f"ended with {process.exitcode} after {elapsed:.0f} s"
        measured.append((elapsed, psutil.Process(process.pid).memory_info().rss))
    process.kill()
    warm = max(rss for elapsed, rss in measured if elapsed <= WARM_UP)
    later = max(rss for elapsed, rss in measured if elapsed > WARM_UP)
    record_property("minutes_trained", SECONDS / 60)
    record_property("memory_growth", round(later / warm, 4))
    assert later <= GROWTH * warm
