import json
import os
import shutil

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import SMOLLM2, TINY_GEMMA_2, check_device, check_model_name, load_model
from sae_lens_contrastive.models.embedded import embedded_model_folder


@pytest.fixture
def folder(model_cache, tmp_path):
    """A local Hugging Face folder of a model that has no name of its own."""
    return shutil.copytree(embedded_model_folder(TINY_GEMMA_2), tmp_path / "mine")


@pytest.fixture
def no_network(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", unreachable)


@pytest.fixture
def no_loading(monkeypatch):
    for loader in (AutoModelForCausalLM, AutoTokenizer):
        monkeypatch.setattr(loader, "from_pretrained", lambda *_args, **_kwargs: pytest.fail("a model was loaded"))


def test_an_embedded_model_keeps_its_name_and_needs_no_gradient(tiny):
    assert tiny.cfg.model_name == TINY_GEMMA_2
    assert tiny.tokenizer.decode(tiny.tokenizer("Paris", add_special_tokens=False)["input_ids"]) == "Paris"
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_logits_are_those_of_transformers(tiny, session_cache):
    plain = AutoModelForCausalLM.from_pretrained(session_cache / TINY_GEMMA_2)
    tokens = torch.randint(5, 200, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tiny(tokens), plain(tokens).logits, rtol=0, atol=1e-5)


def test_a_local_folder_is_loaded_in_the_dtype_asked_for(folder):
    model = load_model(str(folder), dtype="bfloat16")
    assert model.cfg.model_name == str(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        (
            "gemma-2-2bb",
            ["Unknown model 'gemma-2-2bb'", "Did you mean 'google/gemma-2-2b'?", "local Hugging Face folder"],
        ),
        ("smollm2-135m-instuct", ["Did you mean 'smollm2-135m-instruct'?", "tiny-random-gemma-2"]),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(no_loading, name, messages):
    with pytest.raises(UserError) as caught:
        load_model(name)
    assert [message for message in messages if message not in str(caught.value)] == []


@pytest.mark.parametrize("name", [SMOLLM2, TINY_GEMMA_2, "google/gemma-2-2b", "gemma-2-2b-it", "gpt2"])
def test_known_names_are_accepted_without_loading(no_loading, name):
    check_model_name(name)


def test_a_folder_without_a_config_is_told_apart(no_loading, tmp_path):
    with pytest.raises(UserError, match=r"is a folder without config\.json.*save_pretrained"):
        load_model(str(tmp_path))


def test_a_folder_without_a_tokenizer_does_not_get_an_empty_one(no_loading, folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match=r"mine holds no tokenizer.*tokenizer\.save_pretrained"):
        load_model(str(folder))


def _without_weights(folder):
    (folder / "model.safetensors").unlink()


def _with_truncated_weights(folder):
    os.truncate(folder / "model.safetensors", 1000)


def _of_an_unknown_kind(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "no_such_model"}))


@pytest.mark.parametrize("damage", [_without_weights, _with_truncated_weights, _of_an_unknown_kind])
def test_an_incomplete_folder_is_named(folder, damage):
    damage(folder)
    with pytest.raises(UserError, match=r"The folder .*mine does not hold a loadable model and tokenizer: "):
        load_model(str(folder))


def test_dtype_and_device_are_checked_before_loading(no_loading):
    with pytest.raises(UserError, match=r"Unknown dtype 'float23'.*Did you mean 'float32'\?.*bfloat16"):
        load_model(TINY_GEMMA_2, dtype="float23")
    with pytest.raises(UserError, match=r"Unknown device 'gpu'.*cpu, cuda, cuda:N, mps"):
        load_model(TINY_GEMMA_2, device="gpu")


def test_an_absent_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"Device 'cuda:1' is not available on this machine\. Use device: cpu"):
        check_device("cuda:1")


@pytest.mark.parametrize("device", ["meta", "xpu", "xla", "mps"])
def test_a_kind_of_device_that_torch_knows_must_be_here_too(monkeypatch, device):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"Device '{device}' is not available on this machine\. Use device: cpu"):
        check_device(device)


def test_the_number_of_a_gpu_is_looked_at(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(UserError, match=r"Device 'cuda:2' is not available .* Use device: cuda:N with N below 2, or"):
        check_device("cuda:2")


def test_without_network_the_error_comes_without_retries(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_model("gpt2")
    message = str(caught.value)
    assert message.startswith("The model 'gpt2' is not in the local cache and the Hugging Face hub does not answer: ")
    assert "Name or service not known. Check the network, or give a local folder" in message
    assert SMOLLM2 in message


def test_without_network_a_cached_model_loads(no_network, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached, commit = tmp_path / "hub" / "models--google--gemma-2-2b", "a" * 40
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    assert load_model("gemma-2-2b").cfg.d_model == 32


def test_offline_mode_is_told(monkeypatch, tmp_path):
    def offline(*_args, **_kwargs):
        raise OfflineModeIsEnabled("offline mode is enabled; unset `HF_HUB_OFFLINE`")

    monkeypatch.setattr(HfApi, "model_info", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"'gpt2' is not in the local cache.*HF_HUB_OFFLINE"):
        load_model("gpt2")


def test_a_gated_model_asks_for_its_licence(monkeypatch):
    class RefusedError(GatedRepoError):
        def __init__(self):
            Exception.__init__(self, "403 Client Error.\nDetails follow.")

    def refuse(*_args, **_kwargs):
        raise RefusedError

    def refuse_as_transformers_does(*_args, **_kwargs):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.")

    monkeypatch.setattr(HfApi, "model_info", refuse)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", refuse_as_transformers_does)
    with pytest.raises(
        UserError, match=r"gated repo\. If it is gated.* accept its licence .*`hf auth login`"
    ) as caught:
        load_model("google/gemma-2-2b")
    assert "\n" not in str(caught.value)
