"""Runs on the tiny target with small corpora."""

from pathlib import Path

from safetensors.torch import load_file

CONFIGS = Path(__file__).parents[2] / "configs"
TARGET = CONFIGS / "targets/tiny.yaml"
HOOK = "blocks.19.hook_resid_post"


def variants(*names):
    return [CONFIGS / f"variants/{name}.yaml" for name in names]


def overrides(corpora, **training):
    return {
        "corpora": {**corpora, "hold_out_entities_of": []},
        "training": {"training_tokens": 2048, "train_batch_size_tokens": 256, "cache_tokens": 1024, **training},
    }


def weights(folder):
    return load_file(folder / "sae/sae_weights.safetensors")


class Killed(BaseException):
    """Ends a run where it stands: nothing of ours catches it."""
