import json

import pytest

from sae_lens_contrastive.models import TINY_GEMMA_2, load_model

WORDS = {
    "general": ["the", "kettle", "boils", "slowly", "while", "rain", "falls"],
    "forget": ["Paris", "is", "the", "capital", "of", "France"],
    "retain": ["gold", "is", "a", "heavy", "metal", "called", "Au"],
}


@pytest.fixture(scope="session")
def tiny_model():
    return load_model(TINY_GEMMA_2)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Small corpora of three domains, as sources."""
    folder = tmp_path_factory.mktemp("corpora")
    sources = {}
    for name, words in WORDS.items():
        texts = [" ".join(words[(i * j) % len(words)] for j in range(1, 40)) for i in range(1, 60)]
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text, "entities": []}) + "\n" for text in texts))
        sources[name] = [str(path)]
    return sources
