"""Sweeps on the tiny target whose jobs are made by hand."""

from pathlib import Path

import pytest
import yaml
from made_sweeps import COEFFICIENT, HandMade, K, small_inputs, tiny_sweep

from sae_lens_contrastive.config import merge
from sae_lens_contrastive.sweep.jobs import JobRunner


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    """Writes the tiny sweep, on texts and questions of its own, with changes into the working folder."""
    monkeypatch.chdir(tmp_path)
    run, spec = small_inputs(tmp_path)

    def write(overrides=None, spec_overrides=None, **changes):
        own = {"overrides": merge(run, overrides or {}), "spec_overrides": merge(spec, spec_overrides or {})}
        Path("sweep.yaml").write_text(yaml.safe_dump(tiny_sweep(**own, **changes)))
        return "sweep.yaml"

    return write


@pytest.fixture
def searched(sweep_file):
    """Writes a search over the two values that the grid has."""

    def write(n_trials=12, population_size=3, **changes):
        space = {K: {"choices": [4, 8, 16]}, COEFFICIENT: {"low": 0.1, "high": 10, "log": True}}
        search = {"space": space, "n_trials": n_trials, "population_size": population_size}
        return sweep_file(search=search, grid={}, **changes)

    return write


@pytest.fixture
def hand_made(monkeypatch):
    """Jobs take no time and load no model; the object has those that were asked for and may let some fail."""
    made = HandMade()
    monkeypatch.setattr(JobRunner, "_row", lambda runner, job: made.row(runner, job))
    return made
