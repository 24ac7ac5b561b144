"""How the benchmarks measure: sides take turns in one process, memory in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("sae-lens-contrastive", "sae-bench", "sae-lens", "torch", "transformer-lens", "transformers", "numpy")
MIB = 2**20


def machine(device: str = "cpu") -> str:
    """The machine in words."""
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"CPU ({platform.machine()})"
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{where}, {threads}, {platform.system()}, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Versions of what takes part."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Seconds of one call, the device's work included."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def take_turns(sides: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every call: one of each side, then the next of each, so that all share what else the machine does."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            seconds[name].append(seconds_of(run, device))
    return seconds


def rows_beside(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, dict[str, float]]:
    """Median seconds of each side and its ratio to the base side's."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        name: {"seconds": round(median, 6), "ratio": round(median / medians[base], 4)}
        for name, median in medians.items()
    }


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a fresh process, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_rss_mib() -> float:
    """Highest memory that this process has held so far, in MiB; `getrusage` counts that of its parent too."""
    return _status("VmHWM") / MIB


def device_peak_mib(run: Callable[[], object], device: str) -> float:
    """Highest memory allocated on the device during a call; on a CPU what the process took beyond what it held. MiB."""
    gc.collect()
    if not device.startswith("cuda"):
        # What earlier calls freed is still the process' own, and would be used again without being seen.
        ctypes.CDLL(None).malloc_trim(0)
        with PeakMemory() as peak:
            run()
        return round(peak.beyond_start / MIB, 1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronise(device)
    return round(torch.cuda.max_memory_allocated(device) / MIB, 1)


class PeakMemory:
    """Peak of the process' own memory, sampled; pages of mapped files are the system's to take back, so left out."""

    def __enter__(self) -> PeakMemory:
        self.beyond_start = 0
        """Bytes above what was held at the start."""
        self._start = _own_memory()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.005):
            self.beyond_start = max(self.beyond_start, _own_memory() - self._start)


def _own_memory() -> int:
    """Bytes of anonymous memory of this process."""
    return _status("RssAnon")


def _status(name: str) -> int:
    """Bytes of a kind of memory of this process, as Linux counts it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
