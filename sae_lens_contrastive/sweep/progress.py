"""What a sweep shows while it runs: a table in a terminal, a line for each job that ended elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.sweep.jobs import ATTEMPT_FILE, JOB_FILE, LOG_FILE, Failure, Job, JobResult
from sae_lens_contrastive.training.plan import duration_text

_MOST_ROWS = 20
_ORDER = ("running", "failed", "waiting", "done")


@dataclass
class _Shown:
    trial: int
    job: Job
    n_failures: int = 0
    error: str = ""
    result: JobResult | None = None


class Progress:
    """The jobs of a sweep; in a terminal they are a table that is drawn anew every second."""

    def __init__(self, console: Console | None = None) -> None:
        # Not whatever stdout is by then: a job in this process prints to its log.
        self._console = console or Console(file=sys.stdout)
        self._jobs: dict[str, _Shown] = {}
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self.table,
                refresh_per_second=1,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, jobs: Sequence[tuple[int, Job]]) -> None:
        """Jobs that are to be done, each with the number of its trial."""
        self._jobs = {**self._jobs, **{job.digest: _Shown(trial, job) for trial, job in jobs}}

    def failed(self, job: Job, failure: Failure) -> None:
        """An attempt failed and another will be made."""
        shown = self._jobs[job.digest]
        shown.n_failures, shown.error = shown.n_failures + 1, failure.error
        self._say(shown, f"failed and is begun again: {failure.error}")

    def ended(self, job: Job, result: JobResult) -> None:
        """A job ended, now or earlier."""
        shown = self._jobs[job.digest]
        shown.n_failures, shown.error, shown.result = result.n_failures, result.error or "", result
        self._say(shown, _outcome(result))

    def table(self) -> Table:
        """Jobs that run, failed, wait and are done, in this order, as many as a screen has room for."""
        states = {digest: _state(shown) for digest, shown in self._jobs.items()}
        counts = Counter(state for state, _ in states.values())
        table = Table(caption=", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state]))
        for column in ("trial", "seed", "job", "state", "failures", "node", "time", "outcome"):
            table.add_column(column, overflow="fold" if column == "outcome" else "ellipsis")
        ordered = sorted(self._jobs, key=lambda digest: _ORDER.index(states[digest][0]))
        for digest in ordered[:_MOST_ROWS]:
            shown, (state, attempt) = self._jobs[digest], states[digest]
            node, seconds = attempt.get("node", ""), None
            if shown.result is not None:
                node, seconds = shown.result.node, shown.result.seconds
            elif state == "running":
                seconds = time.time() - attempt["unix_seconds"]
            table.add_row(
                f"{shown.trial:03d}",
                str(shown.job.run.seed),
                shown.job.id,
                state,
                str(shown.n_failures),
                node,
                "" if seconds is None else duration_text(seconds),
                shown.error if shown.result is None else _outcome(shown.result),
            )
        return table

    def _say(self, shown: _Shown, what: str) -> None:
        if self._live is None:
            n_ended = sum(each.result is not None for each in self._jobs.values())
            place = f"trial {shown.trial:03d}, seed {shown.job.run.seed}, job {shown.job.id}"
            print(f"{n_ended} of {len(self._jobs)}: {place}: {what}", file=self._console.file, flush=True)


def _state(shown: _Shown) -> tuple[str, dict[str, Any]]:
    """What a job is at, and where; a job says in its folder that it was begun."""
    if shown.result is not None:
        return ("done" if shown.result.error is None else "failed"), {}
    try:
        attempt = read_json(shown.job.folder / ATTEMPT_FILE)
    except UserError:
        return "waiting", {}
    return "running", attempt


def _outcome(result: JobResult) -> str:
    if result.row is None:
        return f"failed for good: {result.error} See its {LOG_FILE}; delete its {JOB_FILE} to run it again."
    held_out = result.row["held_out"]
    return (
        f"score {result.row['unlearning_score']:.3f}, forgetting {held_out['forgetting']:.3f}, retain accuracy "
        f"{held_out['retain_accuracy']:.3f}, explained variance {result.row['explained_variance']:.3f}"
    )
