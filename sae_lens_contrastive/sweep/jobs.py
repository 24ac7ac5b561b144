"""One job of a sweep: train an SAE and evaluate it, once, in a folder of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sae_lens_contrastive.config import StrictModel
from sae_lens_contrastive.errors import UserError, first_line
from sae_lens_contrastive.files import made_once, read_json, write_json
from sae_lens_contrastive.models import load_model
from sae_lens_contrastive.runs import RUN_FILE, let_go_below
from sae_lens_contrastive.study import SUMMARY_KEYS
from sae_lens_contrastive.training import RunConfig, input_key, load_summary, train_runs
from sae_lens_contrastive.unlearning import EvalSpec, SaeUnderTest, check_spec, evaluate_saes
from sae_lens_contrastive.unlearning.shared import UNEDITED_FOLDER, HookData
from sae_lens_contrastive.versions import package_versions

JOBS_FOLDER = "jobs"
JOB_FILE = "job.json"
ATTEMPT_FILE = "attempt.json"
FAILURES_FILE = "failures.json"
LOG_FILE = "log.txt"
ACTIVATIONS_FOLDER = "activations"


class Job(StrictModel):
    """A run with its evaluation, as it is sent to where it is done."""

    digest: str
    """SHA-256 of its configuration, of the texts and questions that it names and of the packages that compute it."""
    run: RunConfig
    """What is trained."""
    spec: EvalSpec
    """How it is evaluated."""
    n_threads: int
    """Threads that it computes with."""
    out: Path
    """Folder of the sweep, absolute."""

    @property
    def id(self) -> str:
        """The first characters of the digest: its name."""
        return self.digest[:16]

    @property
    def folder(self) -> Path:
        """Where everything of the job is."""
        return self.out / JOBS_FOLDER / self.id


class JobResult(StrictModel):
    """How a job ended, as `job.json` holds it."""

    job: str
    """Digest of the job."""
    row: dict[str, Any] | None
    """Row of `results.json`; None if it failed for good."""
    error: str | None
    """Why it failed for good."""
    n_failures: int
    """Attempts that failed."""
    node: str
    """Where the last attempt was made."""
    seconds: float
    """Time of the last attempt."""


class Failure(StrictModel):
    """An attempt that failed."""

    error: str
    """Why."""
    is_final: bool
    """Whether another attempt would fail alike."""
    node: str
    """Where."""
    seconds: float
    """After what time."""


def job_digest(run: RunConfig, spec: EvalSpec, spec_digest: str) -> str:
    """Identity of a job."""
    parts = run.model_dump(mode="json"), input_key(run), spec.model_dump(mode="json"), spec_digest, package_versions()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def saved_result(job: Job) -> JobResult | None:
    """How a job ended; None if it has not.

    Raises `UserError` for a file that no job wrote.
    """
    path = job.folder / JOB_FILE
    if not path.is_file():
        return None
    try:
        result = JobResult.model_validate(read_json(path))
    except ValidationError:
        result = None
    if result is None or result.job != job.digest:
        raise UserError(f"{path} is not what a sweep wrote. Delete it to run the job again.")
    return result


class JobRunner:
    """Does jobs one after another in this process; models and what evaluations share are kept for the next."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._models: dict[tuple[str, str, str], Any] = {}
        self._shared: dict[tuple[str, str], HookData] = {}

    def attempt(self, job: Job, number: int) -> JobResult | Failure:
        """Do a job, unless another process has; what it prints goes to `log.txt` in its folder.

        A process that is at it is waited for: it may be on a node that was given up too early.
        """
        started = time.perf_counter()
        if not (job.out / RUN_FILE).is_file():
            error = f"{job.out} is not there on {self.node}. Give a folder on shared storage with --out."
            return Failure(error=error, is_final=False, node=self.node, seconds=0)
        with _printing_to(job.folder / LOG_FILE):
            print(f"attempt {number} on {self.node}, {time.strftime('%Y-%m-%d %H:%M:%S')}")
            try:
                return self._once(job, number, started)
            except Exception as error:
                traceback.print_exc()
                said = str(error) if isinstance(error, UserError | _OtherNodeError) else _described(error)
                # With a cause it is the disk's or the hub's, which may do better the next time.
                is_final = isinstance(error, UserError) and error.__cause__ is None
                return Failure(error=said, is_final=is_final, node=self.node, seconds=_seconds_since(started))
            finally:
                # Another process may make the next attempt.
                let_go_below(job.folder)

    def _once(self, job: Job, number: int, started: float) -> JobResult:
        with made_once(job.folder / JOB_FILE):
            if (done := saved_result(job)) is not None:
                return done
            write_json(job.folder / ATTEMPT_FILE, {"attempt": number, "node": self.node, "unix_seconds": time.time()})
            self._check_node(job)
            result = JobResult(
                job=job.digest,
                row=self._row(job),
                error=None,
                n_failures=number - 1,
                node=self.node,
                seconds=_seconds_since(started),
            )
            # Last: a job is done once this file is there.
            write_json(job.folder / JOB_FILE, result.model_dump(mode="json"))
            return result

    def _check_node(self, job: Job) -> None:
        """Raise `_OtherNodeError` unless the files and packages here are those of where the sweep was started."""
        try:
            digest = job_digest(job.run, job.spec, check_spec(job.spec).digest)
        except UserError as error:
            raise _OtherNodeError(f"{self.node} lacks what was there when the sweep was started: {error}") from error
        if digest != job.digest:
            raise _OtherNodeError(
                f"{self.node} has other files or packages than where the sweep was started: {package_versions()}."
            )

    def _row(self, job: Job) -> dict[str, Any]:
        run, spec = job.run, job.spec
        n_threads = torch.get_num_threads()
        torch.set_num_threads(job.n_threads)
        try:
            trained_on = self._model(run.model, run.dtype, run.device)
            (folder,) = train_runs([run], job.folder / "train", trained_on, job.out / ACTIVATIONS_FOLDER)
            summary = load_summary(folder)
            if summary["explained_variance"] is None:
                raise UserError("The explained variance is not a finite number: training diverged.")
            # Residual streams at one hook fill the memory that an evaluation may take.
            self._shared = {key: data for key, data in self._shared.items() if key[1] == run.hook_name}
            subject = SaeUnderTest(variant=run.variant, seed=run.seed, path=folder / "sae")
            (result,) = evaluate_saes(
                spec,
                {run.variant: subject},
                job.folder / "eval",
                self._model(spec.model, spec.dtype, spec.device),
                self._shared,
                job.out / UNEDITED_FOLDER,
            )
        finally:
            torch.set_num_threads(n_threads)
        described = {key: summary[key] for key in SUMMARY_KEYS}
        return {**result.model_dump(mode="json"), **described}

    def _model(self, name: str, dtype: Any, device: str) -> Any:
        key = (name, dtype, device)
        if key not in self._models:
            self._models[key] = load_model(name, dtype=dtype, device=device)
        return self._models[key]


class _OtherNodeError(Exception):
    """What is wrong with a node, and may not be with the next."""


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


@contextlib.contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def _seconds_since(started: float) -> float:
    return round(time.perf_counter() - started, 2)
