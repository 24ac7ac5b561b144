"""Large tensors in memory up to a budget, and in files beyond it."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor


class TensorBudget:
    """Hands out CPU tensors: in memory while the budget lasts, then mapped from temporary files,
    below `folder` or where the system has its own (TMPDIR).

    A mapped tensor is read and written like any other; the system keeps the parts in use in memory. The files are
    deleted with the budget; tensors in use outlive them.
    """

    def __init__(self, memory_bytes: float, folder: Path | str | None = None) -> None:
        self.memory_bytes = memory_bytes
        """Bytes of tensors that may lie in memory."""
        self.in_memory = 0
        """Bytes handed out in memory."""
        self.in_files = 0
        """Bytes handed out in files."""
        self._folder = folder
        self._files: Path | None = None
        self._n_files = 0

    def allocate(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor of the shape, its content undefined."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if self.in_memory + n_bytes <= self.memory_bytes or not n_bytes:
            self.in_memory += n_bytes
            return torch.empty(shape, dtype=dtype)
        if self._files is None:
            self._files = Path(tempfile.mkdtemp(prefix="residuals.", dir=self._folder))
            weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)
        self.in_files += n_bytes
        self._n_files += 1
        path = self._files / str(self._n_files)
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)
