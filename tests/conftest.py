"""The tiny random Gemma-2, built once a session outside the user's cache."""

from __future__ import annotations

import pytest

from sae_lens_contrastive.models import TINY_GEMMA_2, load_model
from sae_lens_contrastive.models.embedded import CACHE_VARIABLE


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def model_cache(session_cache, monkeypatch):
    """Let whatever a test loads by name come from the session's cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(session_cache))
    return session_cache


@pytest.fixture(scope="session")
def tiny(session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(session_cache))
        return load_model(TINY_GEMMA_2)
