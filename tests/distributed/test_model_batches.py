import pytest
import torch
from made_ranks import on_ranks
from made_stores import read_twice


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_read_a_corpus_whose_last_round_is_not_full(dtype, tmp_path):
    epoch = [1.0, 2.0, 3.0]
    assert read_twice(3, dtype) == [epoch, epoch]
    assert on_ranks(2, tmp_path, read_twice, 3, dtype) == [[epoch, epoch]] * 2
