"""What a device does in a second: measured where it is, assumed where it is not."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sae_lens_contrastive.models import device_type, is_present

GIGA = 1e9

A100_PEAK = {"float32": 19.5e12, "bfloat16": 312e12, "float16": 312e12}
"""Dense matrix products of an NVIDIA A100, in FLOP/s, from its data sheet; float32 without TF32."""
REACHED_SHARE = {"float32": 0.6, "bfloat16": 0.35, "float16": 0.35}
"""Share of the peak that a model's forward pass or an SAE's training step is assumed to reach. Passes over large
tensors between the matrix products weigh more where these are fast."""
REACHED_SHARE_OF_MEASURED = 0.6
"""The same share of what a large matrix product alone was measured to reach."""

_SIZE = 1024
_SECONDS = 0.15


@dataclass(frozen=True)
class DeviceFacts:
    """Memory and speed of a device."""

    name: str
    """What it is called in messages."""
    memory_bytes: float
    """Memory that a run may fill, in bytes."""
    flops: Mapping[str, float]
    """FLOP/s that training reaches in each number format."""
    source: str
    """Where the speeds come from, as a sentence."""


def assumed_gpu() -> DeviceFacts:
    """One 80 GB A100, for runs on a device that this machine does not have."""
    shares = ", ".join(f"{A100_PEAK[name] * REACHED_SHARE[name] / 1e12:.0f} in {name}" for name in A100_PEAK)
    return DeviceFacts(
        name="one NVIDIA A100 with 80 GB",
        memory_bytes=80 * GIGA,
        flops={name: A100_PEAK[name] * REACHED_SHARE[name] for name in A100_PEAK},
        source=f"assumed, the device is not here: {shares} TFLOP/s (an H100 does two to three times as many)",
    )


def device_facts(device: str) -> DeviceFacts:
    """Facts of a device: if it is here, from matrix products that take about half a second; else `assumed_gpu`.

    Raises `UserError` for a malformed device.
    """
    if not is_present(device):
        return assumed_gpu()
    measured = {name: _matmul_flops(device, getattr(torch, name)) for name in ("float32", "bfloat16", "float16")}
    listed = ", ".join(f"{flops / 1e12:.3g} in {name}" for name, flops in measured.items())
    return DeviceFacts(
        name=f"this machine's {device}",
        memory_bytes=_memory_bytes(device),
        flops={name: flops * REACHED_SHARE_OF_MEASURED for name, flops in measured.items()},
        source=f"measured: a matrix product does {listed} TFLOP/s, training {REACHED_SHARE_OF_MEASURED:.0%} of that",
    )


def _matmul_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of square matrix products, 2 n³ each, over the shortest of the runs that fit into the time."""
    a, b = (torch.ones(_SIZE, _SIZE, device=device, dtype=dtype) for _ in range(2))
    shortest = float("inf")
    deadline = time.perf_counter() + _SECONDS
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        # Reading an entry waits for the device.
        (a @ b)[0, 0].item()
        shortest = min(shortest, time.perf_counter() - start)
    return 2 * _SIZE**3 / shortest


def _memory_bytes(device: str) -> float:
    if device_type(device) == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
