import shutil

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import TINY_GEMMA_2, embedded, model_shape
from sae_lens_contrastive.models.embedded import CACHE_VARIABLE, embedded_model_folder

# Gemma-2-2B: q and o 2304 x 2048 each, k and v 2304 x 1024 each, three MLP matrices 2304 x 9216, four norms.
BLOCK = 2 * 2304 * 2048 + 2 * 2304 * 1024 + 3 * 2304 * 9216 + 4 * 2304


@pytest.fixture
def no_hub(monkeypatch):
    def fail(*_args, **_kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", fail)


@pytest.mark.parametrize("name", ["google/gemma-2-2b", "gemma-2-2b-it"])
def test_gemma_2_2b_has_2_6_billion_parameters_and_needs_no_hub(name, no_hub):
    shape = model_shape(name)
    assert (shape.n_layers, shape.d_model, shape.n_heads, shape.d_head) == (26, 2304, 8, 256)
    assert (shape.d_mlp, shape.d_vocab) == (9216, 256_000)
    assert shape.n_block_parameters == BLOCK == 77_865_984
    assert shape.n_parameters == 26 * BLOCK + 256_000 * 2304 + 2304 == 2_614_341_888


def test_a_cached_configuration_counts_the_same(monkeypatch):
    known = model_shape("google/gemma-2-2b")
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *_args, **_kwargs: Gemma2Config())
    assert model_shape("google/gemma-2-2b") == known


def test_a_model_that_is_built_has_as_many_parameters(model_cache):
    shape = model_shape(TINY_GEMMA_2)
    model = AutoModelForCausalLM.from_pretrained(embedded_model_folder(TINY_GEMMA_2))
    assert shape.n_parameters == model.num_parameters()
    block = model.model.layers[0]
    assert shape.n_block_parameters == sum(parameter.numel() for parameter in block.parameters())
    assert (shape.n_layers, shape.d_model, shape.d_mlp, shape.n_heads, shape.d_head) == (26, 32, 64, 4, 8)
    assert model_shape(str(embedded_model_folder(TINY_GEMMA_2))) == shape


def test_an_embedded_model_is_not_built_for_its_shape(model_cache, tmp_path, monkeypatch):
    built = model_shape(TINY_GEMMA_2)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setattr(embedded, "EMBEDDED_MODELS", {TINY_GEMMA_2: lambda _folder: pytest.fail("built")})
    state = torch.random.get_rng_state()
    assert model_shape(TINY_GEMMA_2) == built
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not (tmp_path / "empty").exists()


def test_a_shape_that_only_the_hub_knows_needs_the_hub(no_hub, tmp_path, monkeypatch):
    def not_cached(*_args, **kwargs):
        assert kwargs == {"local_files_only": True} or "token" in kwargs
        raise OSError("not in the cache")

    monkeypatch.setattr(AutoConfig, "from_pretrained", not_cached)
    with pytest.raises(
        UserError, match=r"shape of 'pythia-70m' is not known here and the .* hub does not answer: Name"
    ):
        model_shape("pythia-70m")


def test_a_folder_with_a_damaged_configuration_is_named(tmp_path, model_cache):
    folder = shutil.copytree(embedded_model_folder(TINY_GEMMA_2), tmp_path / "mine")
    for content in ("{", '{"model_type": "none such"}'):
        (folder / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"The shape of the model in .*mine cannot be read"):
            model_shape(str(folder))
