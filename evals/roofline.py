"""What bounds a step: its floating-point operations and bytes beside what the device does of either in a second."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from bench_measure import seconds_of

from sae_lens_contrastive.models import ModelShape
from sae_lens_contrastive.training.costs import (
    BYTES,
    FLOAT,
    STEP_COPIES,
    model_flops_per_token,
    n_sae_parameters,
    sae_flops_per_token,
)

DATA_SHEETS = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12), "A100": (312e12, 2.04e12)}
"""Dense bfloat16 FLOP/s and memory bytes/s of NVIDIA's SXM cards, from their data sheets (A100 and H100 with 80 GB)."""
_OPTIMISER_PASSES = 15
"""Times a step touches every weight's worth of memory: forward (1), backward (1, and 1 for the gradient), the norm of
the gradient and its clipping (3), the guard's sum (1), Adam (4 read, 3 written), and zero (1)."""
_MATMUL = {"cuda": 8192, "cpu": 1024}
_COPY_BYTES = {"cuda": 2**31, "cpu": 2**27}


@dataclass(frozen=True)
class Peak:
    """What a device does at best."""

    flops: float
    """FLOP/s of its matrix units in the number format of the run."""
    bytes_per_second: float
    """Bytes/s of its memory."""
    measured_flops: float
    """FLOP/s that one large matrix product reached."""
    measured_bytes_per_second: float
    """Bytes/s, read and written, that one large copy reached."""
    source: str
    """Where the first two come from."""


def device_peak(device: str, dtype: torch.dtype) -> Peak:
    """The data sheet's figures of a known card, and what a product and a copy reach on any device."""
    kind = torch.device(device).type
    size, n_bytes = _MATMUL[kind], _COPY_BYTES[kind]
    a = torch.ones(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    flops = 2 * size**3 / min(seconds_of(lambda: torch.mm(a, a, out=out), device) for _ in range(8))
    source, target = (torch.empty(n_bytes, dtype=torch.uint8, device=device) for _ in range(2))
    source.zero_()
    rate = 2 * n_bytes / min(seconds_of(lambda: target.copy_(source), device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if kind == "cuda" else ""
    for card, (sheet_flops, sheet_rate) in DATA_SHEETS.items():
        if card in name and dtype == torch.bfloat16:
            return Peak(sheet_flops, sheet_rate, flops, rate, f"data sheet of the {card} (SXM)")
    return Peak(flops, rate, flops, rate, "measured by a matrix product and a copy")


@dataclass(frozen=True)
class Work:
    """What a step must do at least."""

    flops: float
    """Floating-point operations of its matrix products."""
    bytes: float
    """Bytes that it reads and writes."""


def generation_work(shape: ModelShape, n_blocks: int, n_tokens: int, context_size: int, dtype: str) -> Work:
    """A forward pass through the lowest blocks: every weight once, and what each block reads and writes of a token.

    Of a token a block moves twice 8 d_model + 5 d_mlp numbers, and 3 n_heads context_size scores (not fused).
    """
    per_token = 2 * (8 * shape.d_model + 5 * shape.d_mlp) + 3 * shape.n_heads * context_size
    moved = n_blocks * (shape.n_block_parameters + n_tokens * per_token) * BYTES[dtype]
    return Work(n_tokens * model_flops_per_token(shape, n_blocks, context_size), moved)


def step_work(d_in: int, d_sae: int, n_tokens: int, architecture: str = "topk") -> Work:
    """A training step: the tensors of batch x d_sae written and read once each, and passes over weights and moments."""
    activations = 2 * STEP_COPIES[architecture] * n_tokens * d_sae * FLOAT
    weights = _OPTIMISER_PASSES * n_sae_parameters(d_in, d_sae, architecture) * FLOAT
    return Work(n_tokens * sae_flops_per_token(d_in, d_sae, architecture), activations + weights)


def bound(work: Work, seconds: float, peak: Peak) -> dict[str, Any]:
    """Least seconds by either limit, which of them is higher, and the share of it that was reached."""
    by_units, by_memory = work.flops / peak.flops, work.bytes / peak.bytes_per_second
    return {
        **asdict(work),
        "seconds": round(seconds, 6),
        "seconds_of_matrix_units": round(by_units, 6),
        "seconds_of_memory": round(by_memory, 6),
        "bound_by": "matrix units" if by_units > by_memory else "memory",
        "share_of_bound": round(max(by_units, by_memory) / seconds, 4),
        "share_of_matrix_peak": round(by_units / seconds, 4),
    }
