import resource
import sys

import pytest
import torch

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget


def test_what_is_beyond_the_budget_lies_in_a_file_without_a_name(tmp_path):
    budget = TensorBudget(100, tmp_path)
    inside = budget.allocate(5, 4, dtype=torch.float32)
    beyond = budget.allocate(6, 4, dtype=torch.bfloat16)
    assert (budget.in_memory, budget.in_files) == (80, 48)
    assert list(tmp_path.iterdir()) == []
    for tensor in (inside, beyond):
        tensor.fill_(3)
        assert tensor.sum() == 3 * tensor.numel()
    assert beyond.shape == (6, 4)
    assert beyond.dtype == torch.bfloat16


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS cannot reserve the bytes of a file")
def test_a_disk_without_room_is_said_before_the_file_is_mapped(tmp_path):
    budget = TensorBudget(0, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a disk that is full would, this lets no file grow beyond a size.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"There is no room to write .*residuals.*\. Free some space"):
            budget.allocate(1001, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert budget.in_files == 0


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"No temporary file can be made \(No such file or directory\). Set TMPDIR"):
        TensorBudget(0, tmp_path / "gone").allocate(1, dtype=torch.uint8)


def test_the_rest_of_a_budget_counts_for_itself(tmp_path):
    budget = TensorBudget(100, tmp_path)
    budget.allocate(60, dtype=torch.uint8)
    rest = budget.rest()
    rest.allocate(40, dtype=torch.uint8)
    rest.allocate(1, dtype=torch.uint8)
    assert (rest.in_memory, rest.in_files) == (40, 1)
    assert (budget.in_memory, budget.in_files) == (60, 0)
