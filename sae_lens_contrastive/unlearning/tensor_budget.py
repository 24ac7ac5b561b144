"""Large tensors in memory up to a budget, and in files beyond it."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import disk_that_may_be_full


class TensorBudget:
    """Hands out CPU tensors: in memory while the budget lasts, then mapped from temporary files,
    below `folder` or where the system has its own (TMPDIR).

    A mapped tensor is read and written like any other; the system keeps the parts in use in memory. Its file has no
    name and ends with the tensor or with the process, however that ends.
    """

    def __init__(self, memory_bytes: float, folder: Path | str | None = None) -> None:
        self.memory_bytes = memory_bytes
        """Bytes of tensors that may lie in memory."""
        self.in_memory = 0
        """Bytes handed out in memory."""
        self.in_files = 0
        """Bytes handed out in files."""
        self._folder = folder

    def allocate(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor of the shape, its content undefined.

        Raises `UserError` if a file cannot be made, or there is no room for it.
        """
        n_bytes = math.prod(shape) * dtype.itemsize
        if self.in_memory + n_bytes <= self.memory_bytes or not n_bytes:
            self.in_memory += n_bytes
            return torch.empty(shape, dtype=dtype)
        mapped = self._mapped(math.prod(shape), n_bytes, dtype)
        self.in_files += n_bytes
        return mapped.view(shape)

    def rest(self) -> TensorBudget:
        """A budget of what is left of this one, for tensors that are soon gone: they do not count in this one."""
        return TensorBudget(self.memory_bytes - self.in_memory, self._folder)

    def _mapped(self, n: int, n_bytes: int, dtype: torch.dtype) -> Tensor:
        try:
            descriptor, name = tempfile.mkstemp(prefix="residuals.", dir=self._folder)
        except OSError as error:
            raise UserError(
                f"No temporary file can be made ({error.strerror}). Set TMPDIR to a folder that can be written to, or "
                "give a larger cache_gib."
            ) from None
        try:
            with disk_that_may_be_full(name):
                # Without its bytes reserved, a file that is mapped ends the process where the disk is full.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, n_bytes)
                return torch.from_file(name, shared=True, size=n, dtype=dtype)
        finally:
            os.close(descriptor)
            Path(name).unlink()
