import torch

from sae_lens_contrastive.data.batching import batches_by_length, batches_of_one_length, pad_right
from sae_lens_contrastive.models import residual_at_hook

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


def test_batches_of_one_length_need_no_pads():
    assert batches_of_one_length([3, 5, 3, 3, 0, 50], 9) == [[5], [1], [0, 2, 3], [4]]
    assert batches_of_one_length([3, 3, 3], 6) == [[0, 1], [2]]
    assert batches_of_one_length([], 6) == []
