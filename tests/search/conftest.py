"""The tiny search, and trials that take no time."""

from pathlib import Path

import pytest
import yaml
from made_searches import SEARCHES, HandMade

from sae_lens_contrastive.search import run as run_module
from sae_lens_contrastive.search import trials as trials_module


@pytest.fixture
def search_file(tmp_path, monkeypatch):
    """Writes the tiny search with changes into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        values = yaml.safe_load((SEARCHES / "tiny.yaml").read_text())
        paths = {key: str((SEARCHES / values[key]).resolve()) for key in ("target", "variant", "spec")}
        Path("search.yaml").write_text(yaml.safe_dump({**values, **paths, **changes}))
        return "search.yaml"

    return write


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(trials_module, "load_model", lambda *_args, **_kwargs: pytest.fail("the model was loaded"))


@pytest.fixture
def hand_made(monkeypatch):
    def install(**options):
        runner = HandMade(**options)
        monkeypatch.setattr(run_module, "TrialRunner", runner)
        return runner

    return install
