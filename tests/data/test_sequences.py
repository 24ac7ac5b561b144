import pytest
import torch
from made_streams import HOOK, TEXTS

from sae_lens_contrastive.data.sequences import collect_sequences, editable_positions
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import ModelAboveHook


@pytest.mark.parametrize("n", [1, 5])
def test_sequences_are_the_first_contexts_of_training(n, tiny, make_store):
    found = collect_sequences(make_store(), tiny, HOOK, n)
    reader = make_store()
    trained_on = torch.cat([reader.get_batch_tokens() for _ in range(3)])
    assert torch.equal(found.tokens, trained_on[:n])
    assert (found.tokens[:, 0] == tiny.tokenizer.bos_token_id).all()
    text = tiny.tokenizer.decode(found.tokens[0], skip_special_tokens=True)
    assert TEXTS[0].startswith(text)
    assert len(text) == 15


def test_the_residual_is_the_models_at_the_hook(tiny, make_store):
    found = collect_sequences(make_store(), tiny, HOOK, 5)
    assert found.residual.shape == (5, 16, 32)
    assert found.residual.dtype == next(tiny.parameters()).dtype
    assert not found.residual.requires_grad
    expected = tiny.run_with_cache(found.tokens, names_filter=[HOOK])[1][HOOK]
    torch.testing.assert_close(found.residual, expected, rtol=0, atol=1e-5)
    logits = ModelAboveHook(tiny, HOOK)(found.tokens, found.residual, found.editable)
    torch.testing.assert_close(logits, tiny(found.tokens)[found.editable], rtol=0, atol=1e-5)


def test_the_same_corpus_gives_the_same_sequences(tiny, make_store):
    first, second = (collect_sequences(make_store(), tiny, HOOK, 5) for _ in range(2))
    for name in ("tokens", "residual", "editable"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_texts_are_joined_by_a_special_token_that_is_not_editable(tiny, make_store):
    found = collect_sequences(make_store(), tiny, HOOK, 5)
    bos = found.tokens == tiny.tokenizer.bos_token_id
    # Some texts begin inside a context; everything but their separators and position 0 may be edited.
    assert bos[:, 1:].any()
    assert torch.equal(found.editable, ~bos)


def test_position_0_special_tokens_and_pads_are_not_editable(tiny):
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    pad, eos, bos, start, end = tiny.tokenizer.convert_tokens_to_ids(names)
    tokens = torch.tensor([[bos, 40, start, 41, 42, end], [43, 44, eos, 45, pad, pad]])
    assert editable_positions(tokens, tiny.tokenizer).tolist() == [
        [False, True, False, True, True, False],
        [False, True, False, True, False, False],
    ]


def test_a_small_corpus_gives_what_it_has_and_one_without_a_context_is_refused(tiny, make_store):
    # A context is BOS and 15 tokens of one byte each; three do not fill the last batch of two.
    assert [len(collect_sequences(make_store(["x" * 45]), tiny, HOOK, n)) for n in (2, 3, 4)] == [2, 3, 3]
    with pytest.raises(UserError, match="The retain corpus is shorter than one context of 16 tokens"):
        collect_sequences(make_store(["x" * 8]), tiny, HOOK, 4, "retain")
