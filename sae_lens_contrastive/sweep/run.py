"""The sweep itself: its jobs until every one has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json, write_json
from sae_lens_contrastive.runs import claim_folder
from sae_lens_contrastive.search.proposals import import_optuna
from sae_lens_contrastive.sweep.jobs import (
    ATTEMPT_FILE,
    FAILURES_FILE,
    JOB_FILE,
    JOBS_FOLDER,
    Failure,
    Job,
    JobResult,
    job_digest,
    saved_result,
)
from sae_lens_contrastive.sweep.journal import JournaledSearch
from sae_lens_contrastive.sweep.progress import Progress
from sae_lens_contrastive.sweep.results import SweptTrial, job_records, write_results
from sae_lens_contrastive.sweep.spec import Sweep, Trial, Value
from sae_lens_contrastive.sweep.workers import RayCluster, ThisProcess, Workers

RAY_LOG_FILE = "ray_log.txt"
"""What Ray says of its nodes."""


def run_sweep(sweep: Sweep, out: Path | str, ray_address: str | None = None) -> list[dict[str, Any]]:
    """Do every job of a sweep that `out` does not hold yet, and return all of them in short, the failed ones too.

    A job is a run with its evaluation, in `jobs/<id>`. It is done once its `job.json` is there, whoever did it, and not
    begun again; so a sweep that was ended goes on with the jobs that are left. With `ray_address` they are done on that
    cluster, else one after another in this process, with the same results. After every job, `results.json` has a row
    for each that is done, and `pareto.json` the trials that ended.

    Raises `UserError` if `out` holds another sweep, an extra is missing, there is no cluster at the address, or every
    trial so far failed.
    """
    out = claim_folder(out, "sweep", sweep.identity()).resolve()
    progress = Progress()
    # A cluster or a package that is not there is said before anything is written.
    if sweep.search is not None:
        import_optuna()
    workers = ThisProcess() if ray_address is None else RayCluster(ray_address, sweep.resources, out / RAY_LOG_FILE)
    driver = _Driver(sweep, out, workers, progress)
    try:
        with progress:
            if sweep.search is None:
                driver.do([driver.with_jobs(trial) for trial in sweep.grid])
            else:
                _do_search(driver, JournaledSearch(sweep.search, sweep.space, out))
    finally:
        workers.close()
    return job_records(driver.trials, driver.results)


def _do_search(driver: _Driver, search: JournaledSearch) -> None:
    """Generation by generation, from where the journal ends."""
    driver.do([driver.searched(number, search.trials[number]) for number in range(search.n_told)])
    while numbers := search.propose():
        generation = [driver.searched(number, search.trials[number]) for number in numbers]
        driver.do(generation)
        for trial in generation:
            search.tell(trial.objectives(driver.results))


class _Driver:
    """Starts jobs, counts what failed and writes what was found."""

    def __init__(self, sweep: Sweep, out: Path, workers: Workers, progress: Progress) -> None:
        self.trials: list[SweptTrial] = []
        self.results: dict[str, JobResult] = {}
        self._sweep, self._out, self._workers, self._progress = sweep, out, workers, progress

    def searched(self, number: int, values: Mapping[str, Value]) -> SweptTrial:
        """A trial that a search proposes, which may be impossible."""
        try:
            return self.with_jobs(self._sweep.searched_trial(number, values))
        except UserError as error:
            return SweptTrial(number, dict(values), (), str(error))

    def with_jobs(self, trial: Trial) -> SweptTrial:
        """A trial with its jobs."""
        spec, inputs = self._sweep.spec, self._sweep.inputs
        n_threads = max(1, int(self._sweep.resources.num_cpus))
        jobs = (
            Job(digest=job_digest(run, spec, inputs.digest), run=run, spec=spec, n_threads=n_threads, out=self._out)
            for run in trial.runs
        )
        return SweptTrial(trial.number, trial.params, tuple(jobs))

    def do(self, trials: Sequence[SweptTrial]) -> None:
        """Have the jobs of trials done until each has ended, well or for good."""
        self.trials += trials
        self._progress.add([(trial.number, job) for trial in trials for job in trial.jobs])
        failures: dict[str, list[Failure]] = {}
        for job in (job for trial in trials for job in trial.jobs):
            if (result := saved_result(job)) is not None:
                self._end(job, result)
            else:
                failures[job.digest] = _saved_failures(job)
                self._start(job, failures[job.digest])
        write_results(self._out, self.trials, self.results)
        while not failures.keys() <= self.results.keys():
            for job, outcome in self._workers.ended():
                if isinstance(outcome, Failure):
                    outcome = self._after_failure(job, [*failures[job.digest], outcome])
                if isinstance(outcome, JobResult):
                    self._end(job, outcome)
                    write_results(self._out, self.trials, self.results)
                else:
                    failures[job.digest] = outcome
        self._check_that_something_works()

    def _start(self, job: Job, failures: Sequence[Failure]) -> None:
        # Whoever does the job writes it anew.
        (job.folder / ATTEMPT_FILE).unlink(missing_ok=True)
        self._workers.start(job, len(failures) + 1)

    def _end(self, job: Job, result: JobResult) -> None:
        self.results[job.digest] = result
        self._progress.ended(job, result)

    def _after_failure(self, job: Job, failures: list[Failure]) -> JobResult | list[Failure]:
        """Another attempt if there may be one; otherwise the job has failed for good."""
        if (done := saved_result(job)) is not None:
            # What was lost is the word that it was done.
            return done
        last = failures[-1]
        write_json(job.folder / FAILURES_FILE, [failure.model_dump() for failure in failures])
        if not last.is_final and len(failures) <= self._sweep.retries:
            self._progress.failed(job, last)
            self._start(job, failures)
            return failures
        result = JobResult(
            job=job.digest, row=None, error=last.error, n_failures=len(failures), node=last.node, seconds=last.seconds
        )
        write_json(job.folder / JOB_FILE, result.model_dump(mode="json"))
        return result

    def _check_that_something_works(self) -> None:
        if self.trials and all(trial.error(self.results) is not None for trial in self.trials):
            raise UserError(
                f"All of {len(self.trials)} trials failed, the first of them so: {self.trials[0].error(self.results)} "
                f"Change the sweep, or delete {JOB_FILE} in the folders of {self._out / JOBS_FOLDER} to try them again."
            )


def _saved_failures(job: Job) -> list[Failure]:
    path = job.folder / FAILURES_FILE
    return [Failure.model_validate(each) for each in read_json(path)] if path.is_file() else []
