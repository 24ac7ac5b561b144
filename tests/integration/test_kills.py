"""Processes that are killed at any moment: the same command ends what they began as if nothing had been."""

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from processes import contents, ended, started

from sae_lens_contrastive import files

TRAIN = ["train", "target.yaml", "plain.yaml", "term.yaml", "--set", "training.n_checkpoints=6"]
TRAIN += ["--set", "training.training_tokens=2560", "--out", "out"]
EVAL = ["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--sae", "trained/term/sae", "--cache", "cache"]
EVAL += ["--out", "out"]
STUDY = ["study", "study.yaml", "--out", "out"]
SEARCH = ["search", "search.yaml", "--out", "out"]
SWEEP = ["sweep", "sweep.yaml", "--out", "out"]
# On a busy machine a command would else be killed more often than it gets on.
MOST_IN_A_ROW = 4
COMMANDS = {"train": TRAIN, "eval": EVAL, "study": STUDY, "search": SEARCH, "sweep": SWEEP}


def survive(arguments, folder, n_kills, seed):
    """Kill a command `n_kills` times at random moments and let it end after each few; return how often it ended."""
    rng, out = random.Random(seed), folder / "out"
    began = time.perf_counter()
    assert ended(arguments, folder) == 0
    seconds, whole = time.perf_counter() - began, contents(out)
    assert whole
    killed = n_ended = 0
    while killed < n_kills:
        _clear(folder)
        in_a_row = 0
        while True:
            process = started(arguments, folder)
            process.join(rng.uniform(0, seconds) if killed < n_kills and in_a_row < MOST_IN_A_ROW else None)
            if process.is_alive():
                process.kill()
                process.join()
                killed += 1
                in_a_row += 1
                continue
            assert process.exitcode == 0
            break
        n_ended += 1
        assert contents(out) == whole
        assert not list(out.rglob("*.partial"))
    return n_ended


@pytest.mark.parametrize(("name", "n_kills"), [("train", 2), ("eval", 1), ("study", 1), ("search", 1), ("sweep", 1)])
def test_what_is_killed_a_few_times_ends_as_if_it_had_not_been(name, n_kills, prepared, record_property):
    assert survive(COMMANDS[name], prepared, n_kills, seed=0) >= 1
    record_property("kills", n_kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "n_kills"), [("train", 20), ("eval", 12), ("study", 10), ("search", 8), ("sweep", 8)])
def test_what_is_killed_many_times_ends_as_if_it_had_not_been(name, n_kills, prepared, record_property):
    assert survive(COMMANDS[name], prepared, n_kills, seed=1) >= 2
    record_property("kills", n_kills)


def count_file_operations(place, kill_at=None):
    """Write the number of steps to `place`, after which a file or folder has changed; be killed before one of them."""
    n_done = 0

    def counted(step):
        def count_and_step(*args, **kwargs):
            nonlocal n_done
            if n_done == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            n_done += 1
            place.write_text(str(n_done))
            return step(*args, **kwargs)

        return count_and_step

    # Where the package's writing changes what another process would see.
    Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)
    Path.unlink, Path.mkdir = counted(Path.unlink), counted(Path.mkdir)
    files.flush_to_disk, shutil.rmtree = counted(files.flush_to_disk), counted(shutil.rmtree)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["train", "eval"])
def test_killed_before_any_step_that_changes_a_file_it_ends_as_if_it_had_not_been(name, prepared, record_property):
    steps, out = prepared / "steps", prepared / "out"
    # The third checkpoint is the first that takes an old one away.
    command = [*COMMANDS[name], *(["--set", "training.n_checkpoints=3"] if name == "train" else [])]
    assert ended(command, prepared, partial(count_file_operations, steps)) == 0
    whole, n_steps = contents(out), int(steps.read_text())
    assert n_steps > 20
    for step in range(n_steps):
        _clear(prepared)
        assert ended(command, prepared, partial(count_file_operations, steps, step)) == -signal.SIGKILL
        assert ended(command, prepared) == 0
        assert contents(out) == whole, f"killed before step {step} of {n_steps}"
    record_property("kills_before_a_file_step", n_steps)


def _clear(folder):
    for name in ("out", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
