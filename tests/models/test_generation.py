import pytest
import torch

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.models import greedy_continuations


def said_step_by_step(model, tokens, n):
    with torch.no_grad():
        for _ in range(n):
            tokens = [*tokens, model(torch.tensor([tokens]))[0, -1].argmax().item()]
    return tokens[-n:]


@pytest.fixture
def prompts(tiny):
    return [[tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, text)] for text in ("It was", "It is.")]


def test_the_most_likely_token_whatever_the_models_own_settings_say(tiny, prompts, monkeypatch):
    expected = [said_step_by_step(tiny, tokens, 6) for tokens in prompts]
    settings = tiny.original_model.generation_config
    monkeypatch.setattr(settings, "do_sample", True)
    monkeypatch.setattr(settings, "temperature", 5.0)
    monkeypatch.setattr(settings, "repetition_penalty", 50.0)
    assert len(set(prompts[0])) == len(prompts[0])
    assert greedy_continuations(tiny, prompts, 6) == expected


def test_a_special_token_ends_it_and_is_left_out(tiny, prompts, monkeypatch):
    whole = greedy_continuations(tiny, prompts, 6)
    end = whole[0][2]
    monkeypatch.setattr(type(tiny.tokenizer), "all_special_ids", [end])
    assert greedy_continuations(tiny, prompts, 6) == [row[: row.index(end)] if end in row else row for row in whole]
