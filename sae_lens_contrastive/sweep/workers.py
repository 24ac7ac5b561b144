"""Where jobs are done: in this process, one after another, or on a Ray cluster."""

from __future__ import annotations

import importlib
import os
import platform
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.sweep.jobs import Failure, Job, JobResult, JobRunner
from sae_lens_contrastive.sweep.spec import Resources

_CONNECT_SECONDS = 10


class Workers(Protocol):
    """What does jobs."""

    def start(self, job: Job, attempt: int) -> None:
        """Have an attempt at a job made, now or later."""
        ...

    def ended(self) -> list[tuple[Job, JobResult | Failure]]:
        """Attempts that ended since the last call; it waits for one, but not for long."""
        ...

    def close(self) -> None:
        """Stop what runs."""
        ...


class ThisProcess:
    """Jobs one after another, in the order in which they were started."""

    def __init__(self) -> None:
        self._runner = JobRunner(platform.node())
        self._waiting: deque[tuple[Job, int]] = deque()

    def start(self, job: Job, attempt: int) -> None:
        """Put a job behind the others."""
        self._waiting.append((job, attempt))

    def ended(self) -> list[tuple[Job, JobResult | Failure]]:
        """Do the next job."""
        job, attempt = self._waiting.popleft()
        return [(job, self._runner.attempt(job, attempt))]

    def close(self) -> None:
        """Nothing runs between two calls."""


class RayCluster:
    """Jobs as tasks of a Ray cluster, each with its resources; every node sees the folder of the sweep.

    Ray itself repeats nothing: attempts are counted by the sweep. What Ray prints goes to `log`. Raises `UserError` if
    Ray is not installed or there is no cluster at the address.
    """

    def __init__(self, address: str, resources: Resources, log: Path) -> None:
        self._ray = ray = import_ray()
        try:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(
                f"No Ray cluster at --ray-address {address}: {first_line(error)} Start one with `ray start --head` and "
                "give auto or HOST:PORT, or leave --ray-address out: the jobs are then done in this process."
            ) from None
        # What it prints about its nodes would fall into the table, or into what is printed for machines.
        self._printing = ExitStack()
        self._printing.enter_context(redirect_stdout(self._printing.enter_context(log.open("a", buffering=1))))
        if not any(_has(node["Resources"], resources) for node in ray.nodes() if node["Alive"]):
            wanted = f"{resources.num_cpus:g} CPUs and {resources.num_gpus:g} GPUs"
            print(f"No node of the cluster has {wanted}; the jobs wait for one.", file=sys.stderr)
        self._attempt = ray.remote(_attempt_on_ray).options(
            num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, max_retries=0
        )
        self._running: dict[Any, tuple[Job, float]] = {}

    def start(self, job: Job, attempt: int) -> None:
        """Hand a job to Ray, which begins it where its resources are free."""
        reference = self._attempt.remote(job.model_dump(mode="json"), attempt, str(Path.cwd()))
        self._running[reference] = (job, time.perf_counter())

    def ended(self) -> list[tuple[Job, JobResult | Failure]]:
        """Attempts that ended, after a second at the latest."""
        references, _ = self._ray.wait(list(self._running), num_returns=1, timeout=1)
        return [self._outcome(reference) for reference in references]

    def close(self) -> None:
        """End the connection, and with it every job that still runs."""
        self._ray.shutdown()
        self._printing.close()

    def _outcome(self, reference: Any) -> tuple[Job, JobResult | Failure]:
        job, started = self._running.pop(reference)
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            seconds = round(time.perf_counter() - started, 2)
            # Its first sentence says what happened, the others how to find out more.
            lost = f"{type(error).__name__}: {first_line(error).split('. ')[0].rstrip('.')}."
            return job, Failure(error=lost, is_final=False, node="", seconds=seconds)
        return job, (JobResult if "job" in said else Failure).model_validate(said)


def _check_reachable(address: str) -> None:
    """Raise `OSError` or `ValueError` if nobody listens at HOST:PORT: Ray itself would try for minutes."""
    if address != "auto":
        place = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((place.hostname or "", place.port or 0), timeout=_CONNECT_SECONDS).close()


def _has(there: Mapping[str, float], wanted: Resources) -> bool:
    return there.get("CPU", 0) >= wanted.num_cpus and there.get("GPU", 0) >= wanted.num_gpus


_runner: JobRunner | None = None
"""Of a worker process of Ray, which does one job after another."""


def _attempt_on_ray(job: dict[str, Any], attempt: int, folder: str) -> dict[str, Any]:
    """An attempt in a worker process; what goes to and fro is plain JSON."""
    global _runner
    # Paths in a configuration are relative to where the command was given.
    os.chdir(folder)
    if _runner is None:
        node_id = import_ray().get_runtime_context().get_node_id()
        _runner = JobRunner(f"{platform.node()}/{node_id[:8]}")
    return _runner.attempt(Job.model_validate(job), attempt).model_dump(mode="json")


def import_ray() -> ModuleType:
    """Ray; `UserError` names the extra if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise UserError(
            "--ray-address needs Ray, which is not installed. Install the extra 'ray': "
            "pip install 'sae-lens-contrastive[ray]'. Without --ray-address the jobs are done in this process."
        ) from None
