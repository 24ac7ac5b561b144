import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models import residual_at_hook
from sae_lens_contrastive.unlearning.batching import batches_by_length, encode_text, pad_right
from sae_lens_contrastive.unlearning.corpus import corpus_residuals

HOOK = "blocks.19.hook_resid_post"


def test_batches_hold_everything_once_within_the_budget():
    lengths = [7, 3, 9, 3, 30, 1, 8]
    batches = batches_by_length(lengths, 20)
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in batches)
    assert batches[0] == [4]


def test_padding_changes_no_residual_before_it(tiny):
    rows = [[2, 40, 41, 42], [2, 50]]
    padded = residual_at_hook(tiny, HOOK, pad_right(rows, tiny))
    for row, tokens in enumerate(rows):
        alone = residual_at_hook(tiny, HOOK, torch.tensor([tokens]))[0]
        torch.testing.assert_close(padded[row, : len(tokens)], alone, rtol=1e-4, atol=1e-4)


def _naive(model, texts, context_size):
    parts = []
    for text in texts:
        tokens = encode_text(model.tokenizer, text)
        for start in range(0, len(tokens), context_size - 1):
            context = [model.tokenizer.bos_token_id, *tokens[start : start + context_size - 1]]
            residual = residual_at_hook(model, HOOK, torch.tensor([context]))[0]
            special = set(model.tokenizer.all_special_ids)
            parts.append(residual[[token not in special for token in context]])
    return torch.cat(parts)


def _sorted_rows(rows):
    return rows[rows[:, 0].argsort()]


def test_corpus_residuals_are_those_of_each_context_alone(tiny):
    texts = ["abcdefghij", "xyz", "see <eos> there"]
    got = corpus_residuals(tiny, HOOK, texts, context_size=5, max_tokens=1000, batch_tokens=12)
    expected = _naive(tiny, texts, 5)
    assert got.shape == expected.shape
    torch.testing.assert_close(_sorted_rows(got), _sorted_rows(expected), rtol=1e-4, atol=1e-4)


def test_corpus_residuals_stop_at_the_budget(tiny):
    whole = corpus_residuals(tiny, HOOK, ["abcdefgh"], context_size=5, max_tokens=6)
    assert len(whole) == 6
    torch.testing.assert_close(_sorted_rows(whole), _sorted_rows(_naive(tiny, ["abcdef"], 5)), rtol=1e-4, atol=1e-4)


def test_a_corpus_of_nothing_but_special_tokens_is_refused(tiny):
    with pytest.raises(UserError, match="no token but special ones"):
        corpus_residuals(tiny, HOOK, ["<eos>"], context_size=5, max_tokens=6)


def test_a_context_beyond_the_model_is_refused(tiny):
    with pytest.raises(UserError, match="context of 512"):
        corpus_residuals(tiny, HOOK, ["abc"], context_size=513, max_tokens=6)
