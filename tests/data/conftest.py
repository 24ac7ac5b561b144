import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from made_hub import FakeHub
from made_streams import HOOK, TEXTS
from sae_lens.training.activations_store import ActivationsStore
from sae_lens.util import get_special_token_ids

from sae_lens_contrastive.data import hub_datasets


@pytest.fixture
def make_store(tiny):
    """SAELens stores over the same texts: batches of 2 contexts of 16 tokens, a buffer of 6 contexts."""

    def make(texts=TEXTS, **changed):
        arguments = {
            "streaming": False,
            "hook_name": HOOK,
            "hook_head_index": None,
            "context_size": 16,
            "d_in": 32,
            "n_batches_in_buffer": 6,
            "total_training_tokens": 1,
            "store_batch_size_prompts": 2,
            "train_batch_size_tokens": 20,
            "prepend_bos": True,
            "normalize_activations": "none",
            "device": torch.device("cpu"),
            "dtype": "float32",
            "exclude_special_tokens": torch.tensor(get_special_token_ids(tiny.tokenizer)),
        }
        return ActivationsStore(tiny, Dataset.from_dict({"text": list(texts)}), **{**arguments, **changed})

    return make


@pytest.fixture
def hub(monkeypatch):
    rows = [{"id": i, "text": f"text {i}"} for i in range(20)]
    fake = FakeHub({"a/b": rows})
    monkeypatch.setattr(hub_datasets, "load_dataset", fake.load_dataset)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, **_kwargs: None)
    return fake
