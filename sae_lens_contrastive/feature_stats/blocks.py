"""Blocks of rows, so that passes over wide tensors need no second tensor of their size."""

from __future__ import annotations

from collections.abc import Iterator

MAX_ENTRIES = 2**25
"""Entries of a block: 128 MiB in float32, 2048 tokens of 16,384 features."""


def row_blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Slices that cover `n_rows` rows in order, each of at most `MAX_ENTRIES` entries or of one row."""
    step = max(1, MAX_ENTRIES // max(1, width))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))
