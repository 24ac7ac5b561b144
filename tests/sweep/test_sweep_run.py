import json
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock, Timeout
from made_sweeps import COEFFICIENT, K, tiny_sweep, variants

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import made_once, read_json, write_json
from sae_lens_contrastive.search.trials import Objectives
from sae_lens_contrastive.sweep import resolve_sweep, run_sweep
from sae_lens_contrastive.sweep.jobs import Failure, JobRunner
from sae_lens_contrastive.sweep.results import nondominated
from sae_lens_contrastive.training import load_summary
from sae_lens_contrastive.unlearning import SaeUnderTest, evaluate_saes


def sweep_of(file, **options):
    return run_sweep(resolve_sweep(file), "out", **options)


def folder_of(job):
    return Path("out/jobs") / job["job"]


def test_a_sweep_in_one_process_trains_evaluates_and_reports(sweep_file, tiny, model_cache, monkeypatch, capsys):
    # Without --ray-address nothing of Ray is needed.
    monkeypatch.setitem(sys.modules, "ray", None)
    sweep_file()
    file = "real.yaml"
    spec = {"max_questions": 12, "max_corpus_tokens": 400, "n_bootstrap": 50, "n_features": [2]}
    spec["measures"] = {"random_baseline": None, "text_effects": None}
    values = tiny_sweep(grid={K: [4, 8]}, variants=variants("baseline"), spec_overrides=spec)
    Path(file).write_text(yaml.safe_dump(values))
    assert main(["sweep", file, "--out", "out", "--json"]) == 0
    said = capsys.readouterr().out
    jobs = json.loads(said)
    assert [(job["trial"], job["params"], job["seed"], job["error"]) for job in jobs] == [
        (0, {K: 4}, 0, None),
        (1, {K: 8}, 0, None),
    ]
    rows = read_json("out/results.json")
    assert [row["variant"] for row in rows] == [job["variant"] for job in jobs] == ["baseline_k-4", "baseline_k-8"]
    folder = folder_of(jobs[1]) / "train/baseline_k-8"
    summary = load_summary(folder)
    assert {key: rows[1][key] for key in ("l0", "explained_variance", "d_sae")} == {
        key: summary[key] for key in ("l0", "explained_variance", "d_sae")
    }
    subject = SaeUnderTest(variant="baseline_k-8", path=folder / "sae")
    (result,) = evaluate_saes(resolve_sweep(file).spec, {"baseline_k-8": subject}, None, model=tiny)
    expected = result.model_dump(mode="json")
    assert {key: rows[1][key] for key in expected if key != "seconds"} == {
        key: value for key, value in expected.items() if key != "seconds"
    }
    # Every domain was put through the model for the first job, and read by the second.
    logs = [(folder_of(job) / "log.txt").read_text() for job in jobs]
    assert ["Activations of forget text" in log for log in logs] == [True, False]
    assert len(list(Path("out/activations").iterdir())) == 1

    before = {path: path.read_bytes() for path in Path("out").rglob("*.json")}
    monkeypatch.setattr(JobRunner, "_row", lambda *_: pytest.fail("nothing was left to do"))
    assert main(["sweep", file, "--out", "out", "--json"]) == 0
    assert capsys.readouterr().out == said
    assert {path: path.read_bytes() for path in Path("out").rglob("*.json")} == before
    assert main(["report", "out"]) == 0
    said = capsys.readouterr().out
    assert "trial  forget  retain  explained variance  values" in said
    assert "baseline_k-8" in said
    assert Path("out/pareto_front.png").stat().st_size > 5000


def test_what_was_measured_is_told_by_job_and_by_trial(sweep_file, hand_made):
    jobs = sweep_of(sweep_file(seeds=[0, 2]))
    assert [job.run.seed for job in hand_made.asked] == [0, 2] * 4
    rows = read_json("out/results.json")
    assert [(row["trial"], row["seed"], row["job"]) for row in rows] == [
        (job["trial"], job["seed"], job["job"]) for job in jobs
    ]
    trials = read_json("out/pareto.json")["trials"]
    # The mean over the seeds; a trial with more features keeps more, one with a smaller coefficient forgets more.
    assert [(t["values"]["forget_accuracy"], t["values"]["retain_accuracy"]) for t in trials] == [
        (0.1, 0.75),
        (0.55, 0.75),
        (0.1, 0.875),
        (0.55, 0.875),
    ]
    assert [trial["on_front"] for trial in trials] == [False, False, True, False]
    assert trials[1]["jobs"] == [job["job"] for job in jobs if job["trial"] == 1]


def test_an_ended_sweep_goes_on_with_the_jobs_that_are_left(sweep_file, hand_made):
    file = sweep_file()
    hand_made.mishaps = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        sweep_of(file)
    assert len(read_json("out/results.json")) == 2
    jobs = sweep_of(file)
    digests = [job.digest for job in hand_made.asked]
    assert len(digests) == 5
    assert digests[2] == digests[3]
    assert len(set(digests)) == 4
    assert sweep_of(file) == jobs
    # A grid that has grown has its new jobs alone to do.
    sweep_of(sweep_file(grid={K: [4, 8], COEFFICIENT: [1, 3, 10]}))
    new = hand_made.asked[5:]
    assert [job.run.sae["loss_terms"]["forget_margin"]["coefficient"] for job in new] == [3, 3]
    assert [row["trial"] for row in read_json("out/results.json")] == [0, 1, 2, 3, 4, 5]


def test_an_attempt_that_failed_is_made_again(sweep_file, hand_made):
    full = UserError("There is no room.")
    full.__cause__ = OSError(28, "No space left on device")
    hand_made.mishaps = {0: RuntimeError("CUDA out of memory"), 4: full}
    jobs = sweep_of(sweep_file(retries=2))
    assert [job["error"] for job in jobs] == [None] * 4
    assert [job["n_failures"] for job in jobs] == [2, 0, 0, 0]
    assert [job.digest for job in hand_made.asked].count(hand_made.asked[0].digest) == 3
    (failures,) = [read_json(path) for path in Path("out").glob("jobs/*/failures.json")]
    assert [failure["error"] for failure in failures] == [
        "RuntimeError: CUDA out of memory.",
        "There is no room.",
    ]
    log = (folder_of(jobs[0]) / "log.txt").read_text()
    assert [f"attempt {number} on" in log for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "Traceback" in log


def test_a_job_that_fails_for_good_is_told_and_stops_no_other(sweep_file, hand_made, capsys):
    hand_made.mishaps = {0: RuntimeError("lost"), 4: RuntimeError("lost again"), 1: UserError("k does not fit.")}
    file = sweep_file(retries=1)
    assert main(["sweep", file, "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "trial 000, seed 0" in said
    assert "failed and is begun again: RuntimeError: lost." in said
    assert "failed for good: k does not fit. See its log.txt; delete its job.json to run it again." in said
    assert said.endswith("2 of 4 jobs failed for good; pareto.json and their log.txt say why.\n")
    # A mistake in the input was final at once: five attempts in all.
    assert len(hand_made.asked) == 5
    trials = read_json("out/pareto.json")["trials"]
    assert [trial["error"] for trial in trials] == ["RuntimeError: lost again.", "k does not fit.", None, None]
    assert [trial["values"] is None for trial in trials] == [True, True, False, False]
    assert [row["trial"] for row in read_json("out/results.json")] == [2, 3]

    jobs = sweep_of(file)
    assert len(hand_made.asked) == 5
    (folder_of(jobs[0]) / "job.json").unlink()
    assert [job["error"] for job in sweep_of(file)] == [None, "k does not fit.", None, None]


def test_failures_are_counted_from_one_call_to_the_next(sweep_file, hand_made):
    file = sweep_file(retries=1, grid={K: [4, 8], COEFFICIENT: [1]})
    hand_made.mishaps = {0: RuntimeError("lost"), 2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        sweep_of(file)
    hand_made.mishaps = {3: RuntimeError("lost again")}
    jobs = sweep_of(file)
    assert [job["n_failures"] for job in jobs] == [2, 0]
    assert jobs[0]["error"] == "RuntimeError: lost again."


def test_a_sweep_ends_if_all_of_it_fails(sweep_file, hand_made, capsys):
    hand_made.mishaps = dict.fromkeys(range(4), UserError("No such hook."))
    assert main(["sweep", sweep_file(), "--out", "out"]) == 2
    assert (
        "All of 4 trials failed, the first of them so: No such hook. Change the sweep, or delete job.json in"
        in capsys.readouterr().err
    )


def test_a_job_that_another_process_has_done_is_not_done_again(sweep_file, hand_made):
    sweep_of(sweep_file(grid={K: [4], COEFFICIENT: [1]}))
    job = hand_made.asked[0]
    saved = job.folder / "job.json"
    result = JobRunner("here").attempt(job, 2)
    assert result.model_dump(mode="json") == read_json(saved)
    assert len(hand_made.asked) == 1
    # What was lost is the word that it was done.


def test_what_is_lost_after_the_last_file_is_no_failure(sweep_file, hand_made, monkeypatch):
    whole = JobRunner.attempt

    def cut_off(runner, job, number):
        whole(runner, job, number)
        return Failure(error="The node died.", is_final=False, node="", seconds=1)

    monkeypatch.setattr(JobRunner, "attempt", cut_off)
    jobs = sweep_of(sweep_file(retries=0))
    assert [(job["error"], job["n_failures"]) for job in jobs] == [(None, 0)] * 4
    assert len(hand_made.asked) == 4


def test_a_job_is_locked_while_it_is_done(sweep_file, hand_made, monkeypatch):
    held = []

    def row(_runner, job):
        with pytest.raises(Timeout):
            FileLock(job.folder / ".job.json.lock").acquire(timeout=0)
        held.append(job.id)
        return hand_made.row(_runner, job)

    monkeypatch.setattr(JobRunner, "_row", row)
    jobs = sweep_of(sweep_file())
    assert held == [job["job"] for job in jobs]
    with made_once(folder_of(jobs[0]) / "job.json"):
        pass


def test_a_node_without_the_folder_or_with_other_files_is_said(sweep_file, hand_made):
    sweep_of(sweep_file())
    job = hand_made.asked[0]
    elsewhere = JobRunner("there").attempt(job.model_copy(update={"out": Path("nowhere").resolve()}), 1)
    assert (elsewhere.is_final, elsewhere.node) == (False, "there")
    assert elsewhere.error.endswith("nowhere is not there on there. Give a folder on shared storage with --out.")
    assert not Path("nowhere").exists()
    other = JobRunner("there").attempt(job.model_copy(update={"digest": "0" * 64}), 1)
    assert other.error.startswith("there has other files or packages than where the sweep was started: {")
    assert not other.is_final
    (job.folder / "job.json").unlink()
    Path("forget.jsonl").unlink()
    lacking = JobRunner("there").attempt(job, 1)
    assert lacking.error.startswith("there lacks what was there when the sweep was started: No corpus at")
    assert not lacking.is_final


def test_an_attempt_that_a_node_cannot_make_counts_as_any_other(sweep_file, hand_made, monkeypatch):
    whole = JobRunner.attempt

    def without_the_folder(runner, job, number):
        return whole(runner, job.model_copy(update={"out": Path("nowhere").resolve()}), number)

    monkeypatch.setattr(JobRunner, "attempt", without_the_folder)
    with pytest.raises(UserError, match=r"All of 4 trials failed, .* is not there on"):
        sweep_of(sweep_file(retries=1))
    assert [len(read_json(path)) for path in Path("out").glob("jobs/*/failures.json")] == [2] * 4


def test_a_damaged_result_and_another_sweep_are_refused(sweep_file, hand_made):
    file = sweep_file()
    jobs = sweep_of(file)
    saved = folder_of(jobs[0]) / "job.json"
    for content in ({}, {**read_json(saved), "job": "0"}):
        write_json(saved, content)
        with pytest.raises(UserError, match=r"job\.json is not what a sweep wrote\. Delete it to run the job again"):
            sweep_of(file)
    with pytest.raises(UserError, match=r"out holds another run \(config.spec.n_bootstrap is 500 there and 50 here\)"):
        sweep_of(sweep_file(spec_overrides={"n_bootstrap": 50}))


def test_without_ray_the_extra_is_named(sweep_file, hand_made, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", sweep_file(), "--ray-address", "auto", "--out", "out"]) == 2
    assert "pip install 'sae-lens-contrastive[ray]'" in capsys.readouterr().err
    assert hand_made.asked == []
    assert not Path("out").exists()


def test_a_plan_has_the_jobs_and_writes_nothing(sweep_file, searched, monkeypatch, capsys, model_cache):
    file = sweep_file(seeds=[0, 1])
    before = set(Path().iterdir())
    monkeypatch.setattr(JobRunner, "attempt", lambda *_: pytest.fail("a job was done"))
    assert main(["sweep", file, "--dry-run"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0].split()[:5] == ["trial", "seed", "job", "training", "memory"]
    assert [line.split()[:2] for line in lines[2:10]] == [[f"00{n}", str(seed)] for n in range(4) for seed in (0, 1)]
    assert lines[2].endswith(f"{K}=4, {COEFFICIENT}=1")
    assert "8 jobs of 1 CPUs and 0 GPUs, up to 3 attempts each: " in said
    assert "activations are generated once for all jobs of a seed and a hook, 2 in all: " in said
    assert "questions" in said
    assert main(["sweep", searched(overrides={"training": {"cache_tokens": 0}}), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 jobs of" in said
    assert "this is the first generation; 12 trials in all" in said
    assert "training.cache_tokens is 0: every job runs the model itself" in said
    assert set(Path().iterdir()) == before
    assert main(["sweep", "sweep.yaml"]) == 2
    assert "--out, or see the plan with --dry-run" in capsys.readouterr().err


def test_what_no_other_trial_dominates():
    values = {
        0: (0.2, 0.9, 0.8),
        1: (0.3, 0.8, 0.7),  # worse than the first in everything
        2: (0.1, 0.5, 0.8),  # forgets more
        4: (0.2, 0.9, 0.8),  # equal to the first
        5: (0.9, 0.9, 0.9),  # reconstructs better
        6: (0.2, 0.9, 0.7),  # as the first, but reconstructs worse
    }
    names = ("forget_accuracy", "retain_accuracy", "explained_variance")
    made = {number: Objectives(**dict(zip(names, each, strict=True))) for number, each in values.items()}
    assert nondominated(made) == {0, 2, 4, 5}
