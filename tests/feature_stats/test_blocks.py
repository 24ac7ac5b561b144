"""Blocks of rows cover every row once, and statistics by blocks are those of the whole."""

import pytest
import torch

from sae_lens_contrastive.feature_stats import MutualInformationTracker, StabilityTracker, blocks
from sae_lens_contrastive.feature_stats.blocks import row_blocks


@pytest.mark.parametrize(("n_rows", "width"), [(0, 3), (1, 3), (7, 3), (8, 100), (5, 0)])
def test_blocks_cover_all_rows_in_order(n_rows, width, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_ENTRIES", 9)
    covered = [row for rows in row_blocks(n_rows, width) for row in range(n_rows)[rows]]
    assert covered == list(range(n_rows))


def test_statistics_by_blocks_are_those_of_the_whole(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(50, 6, generator=generator).relu()
    is_forget = torch.rand(50, generator=generator) < 0.3
    rows = [torch.randn(40, 6, generator=generator) for _ in range(2)]

    def found():
        information, stability = MutualInformationTracker(6), StabilityTracker()
        information.update(acts, is_forget)
        stability.update(rows[0])
        return information.state_dict(), stability.update(rows[1])

    whole = found()
    monkeypatch.setattr(blocks, "MAX_ENTRIES", 13)
    by_blocks = found()
    torch.testing.assert_close(by_blocks[0], whole[0], rtol=0, atol=0)
    assert by_blocks[1] == whole[1]
