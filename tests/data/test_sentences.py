"""Sentences on their own, with the residual stream the model makes of each."""

import pytest
import torch

from sae_lens_contrastive.data.sentences import MAX_TOKENS, collect_sentences, kept_sentences, sentences
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook

HOOK = "blocks.19.hook_resid_post"


def test_sentences_end_where_sentences_and_lines_do():
    texts = ["The capital is Paris. Is it large? It is!\nA heading without an end", "Short.   Another sentence of it."]
    assert list(sentences(texts)) == [
        "The capital is Paris.",
        "A heading without an end",
        "Another sentence of it.",
    ]


def test_each_sentence_is_a_sequence_of_its_own(tiny):
    found = collect_sentences([["One sentence of this kind. And another sentence, longer."]], tiny, HOOK, 10, seed=0)
    assert len(found) == 2
    for tokens, residual, editable in zip(found.tokens, found.residual, found.editable, strict=True):
        n_tokens = int(editable.sum()) + 1
        assert tokens[0] == tiny.tokenizer.bos_token_id
        assert editable.tolist() == [False, *[True] * (n_tokens - 1), *[False] * (len(tokens) - n_tokens)]
        alone = residual_at_hook(tiny, HOOK, tokens[None, :n_tokens])[0]
        assert torch.allclose(residual[:n_tokens], alone, atol=1e-5)


def test_long_sentences_are_cut(tiny):
    found = collect_sentences([["word " * 200]], tiny, HOOK, 1, seed=0)
    assert found.tokens.shape == (1, MAX_TOKENS + 1)


def decoded(found, model):
    rows = zip(found.tokens, found.editable, strict=True)
    return [model.tokenizer.decode(tokens[editable]) for tokens, editable in rows]


def test_sources_take_turns_and_the_shorter_begins_again(tiny):
    long = [f"Sentence number {i} of many." for i in range(4)]
    short = ["The one and only sentence."]
    found = decoded(collect_sentences([long, short], tiny, HOOK, 6, seed=0), tiny)
    assert found[1::2] == short * 3
    assert sorted(found[::2]) == sorted(long[:3])  # half of six
    again = decoded(collect_sentences([long, short], tiny, HOOK, 6, seed=0), tiny)
    assert again == found
    orders = {tuple(decoded(collect_sentences([long], tiny, HOOK, 4, seed=seed), tiny)) for seed in range(6)}
    assert len(orders) > 1


def test_a_source_without_a_sentence_is_named(tiny):
    with pytest.raises(UserError, match="retain corpus has no sentence"):
        collect_sentences([["A sentence that is there."], ["No.", ""]], tiny, HOOK, 3, 0, "retain")


def test_sentences_that_are_kept_are_read_again_as_they_were(tiny, tmp_path):
    def collect():
        return collect_sentences([["A sentence that is there. Another one, somewhat longer."]], tiny, HOOK, 9, seed=0)

    path = tmp_path / "sentences.safetensors"
    first = kept_sentences(path, "one", collect)
    again = kept_sentences(path, "one", lambda: pytest.fail("collected twice"))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.editable, again.editable)
    assert torch.equal(first.residual[first.editable], again.residual[first.editable])
    with pytest.raises(pytest.fail.Exception, match="other corpora"):
        kept_sentences(path, "two", lambda: pytest.fail("other corpora"))
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(kept_sentences(path, "one", collect).tokens, first.tokens)
