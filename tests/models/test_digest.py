"""What counts as the same model."""

from sae_lens_contrastive.models import model_digest


def test_a_digest_follows_the_chat_template_and_the_configuration(tiny, monkeypatch):
    own = model_digest(tiny)
    with monkeypatch.context() as patched:
        patched.setattr(tiny.tokenizer, "chat_template", "{{ messages }}")
        assert model_digest(tiny) != own
    with monkeypatch.context() as patched:
        patched.setattr(tiny.original_model.config, "rms_norm_eps", 1e-5)
        assert model_digest(tiny) != own
    assert model_digest(tiny) == own


def test_it_follows_neither_what_was_tokenised_before_nor_where_the_model_was_loaded_from(tiny, monkeypatch):
    own = model_digest(tiny)
    tiny.tokenizer(["a", "longer"], padding=True, truncation=True, max_length=4)
    assert model_digest(tiny) == own
    monkeypatch.setattr(tiny.original_model.config, "_name_or_path", "elsewhere")
    monkeypatch.setattr(tiny.original_model.config, "transformers_version", "0.1")
    assert model_digest(tiny) == own
