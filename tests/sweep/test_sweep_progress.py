import io
import time

from rich.console import Console

from sae_lens_contrastive.files import write_json
from sae_lens_contrastive.sweep import resolve_sweep
from sae_lens_contrastive.sweep.jobs import ATTEMPT_FILE, Failure, Job, JobResult
from sae_lens_contrastive.sweep.progress import Progress

ROW = {"unlearning_score": 0.5, "explained_variance": 0.8, "held_out": {"forgetting": 0.6, "retain_accuracy": 0.99}}


def jobs_of(file, out):
    sweep = resolve_sweep(file)
    runs = [run for trial in sweep.grid for run in trial.runs]
    return [Job(digest=f"{n}" * 64, run=run, spec=sweep.spec, n_threads=1, out=out) for n, run in enumerate(runs)]


def result(job, **changes):
    facts = {"row": ROW, "error": None, "n_failures": 0, "node": "a/1", "seconds": 61.0, **changes}
    return JobResult(job=job.digest, **facts)


def shown(progress):
    console = Console(file=io.StringIO(), width=200)
    console.print(progress.table())
    return console.file.getvalue().splitlines()


def test_the_table_of_a_terminal_has_what_runs_first(sweep_file, tmp_path):
    screen = io.StringIO()
    jobs = jobs_of(sweep_file(), tmp_path)
    with Progress(Console(file=screen, force_terminal=True, width=200)) as progress:
        progress.add(list(enumerate(jobs)))
        progress.ended(jobs[0], result(jobs[0]))
        progress.failed(jobs[2], Failure(error="The node died.", is_final=False, node="b/2", seconds=1))
        progress.ended(jobs[3], result(jobs[3], row=None, error="k does not fit.", n_failures=1))
        write_json(jobs[1].folder / ATTEMPT_FILE, {"attempt": 1, "node": "b/2", "unix_seconds": time.time() - 30})
        lines = [line for line in shown(progress) if line.startswith("│")]
        caption = shown(progress)[-1].strip()
    states = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [(cells[0], cells[3], cells[4], cells[5]) for cells in states] == [
        ("001", "running", "0", "b/2"),
        ("003", "failed", "1", "a/1"),
        ("002", "waiting", "1", ""),
        ("000", "done", "0", "a/1"),
    ]
    assert states[0][6] == "30 s"
    assert states[2][7] == "The node died."
    assert states[3][7] == "score 0.500, forgetting 0.600, retain accuracy 0.990, explained variance 0.800"
    assert caption == "1 running, 1 failed, 1 waiting, 1 done"
    assert "\x1b" in screen.getvalue()


def test_elsewhere_a_job_is_a_line_and_nothing_moves(sweep_file, tmp_path):
    jobs = jobs_of(sweep_file(), tmp_path)
    said = io.StringIO()
    with Progress(Console(file=said)) as progress:
        progress.add(list(enumerate(jobs)))
        progress.ended(jobs[0], result(jobs[0]))
        progress.failed(jobs[1], Failure(error="The node died.", is_final=False, node="b/2", seconds=1))
    assert said.getvalue().splitlines() == [
        f"1 of 4: trial 000, seed 0, job {jobs[0].id}: score 0.500, forgetting 0.600, retain accuracy 0.990, "
        "explained variance 0.800",
        f"1 of 4: trial 001, seed 0, job {jobs[1].id}: failed and is begun again: The node died.",
    ]
