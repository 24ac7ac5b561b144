"""Processes that are killed at any moment: the same command ends what they began as if nothing had been."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

from sae_lens_contrastive.cli import main

ROOT = Path(__file__).parents[2]
# Forked from a process that has imported everything and started nothing: a command begins in a moment.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["sae_lens_contrastive.study", "sae_lens_contrastive.search", "matplotlib.pyplot"])

TRAIN = ["train", "target.yaml", "plain.yaml", "term.yaml", "--set", "training.n_checkpoints=6"]
TRAIN += ["--set", "training.training_tokens=2560"]
COMMANDS = {
    "train": TRAIN,
    "eval": ["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--sae", "trained/term/sae"],
    "study": ["study", "study.yaml"],
}


def command(arguments, folder):
    """What a process does: a command of ours, silently."""
    os.chdir(folder)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        sys.exit(main([*arguments, "--out", "out"]))


def started(arguments, folder):
    process = CONTEXT.Process(target=command, args=(arguments, folder))
    process.start()
    return process


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(item) for key, item in value.items() if "seconds" not in key}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def contents(out):
    """Every file below a folder that is a result; times apart."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        content = path.read_bytes()
        # SAEBench's format names the moment and a new identity of every evaluation; figures draw what is compared.
        if path.suffix == ".json" and "saebench" not in path.parts:
            found[path.relative_to(out)] = without_seconds(json.loads(content))
        elif path.suffix == ".safetensors":
            found[path.relative_to(out)] = content
        else:
            found[path.relative_to(out)] = None
    return found


def survive(arguments, folder, n_kills, seed):
    """Kill a command `n_kills` times at random moments and let it end after each few; return how often it ended."""
    rng, out = random.Random(seed), folder / "out"
    began = time.perf_counter()
    whole_run = started(arguments, folder)
    whole_run.join()
    assert whole_run.exitcode == 0
    seconds, whole = time.perf_counter() - began, contents(out)
    assert whole
    killed = ended = 0
    while killed < n_kills:
        shutil.rmtree(out)
        while True:
            process = started(arguments, folder)
            process.join(rng.uniform(0, seconds) if killed < n_kills else None)
            if process.is_alive():
                process.kill()
                process.join()
                killed += 1
                continue
            assert process.exitcode == 0
            break
        ended += 1
        assert contents(out) == whole
        assert not list(out.rglob("*.partial"))
    return ended


@pytest.fixture
def prepared(work, model_cache):
    """The working folder with two trained SAEs, a specification and a study."""
    spec = yaml.safe_load((ROOT / "evals/world_facts_tiny.yaml").read_text())
    spec |= {"max_questions": 24, "n_bootstrap": 50}
    (work / "tiny.yaml").write_text(yaml.safe_dump(spec))
    study = {
        "target": "target.yaml",
        "spec": "tiny.yaml",
        "seeds": [0, 1],
        "settings": {"small": {"variants": ["plain.yaml"]}, "wide": {"variants": ["term.yaml"]}},
    }
    (work / "study.yaml").write_text(yaml.safe_dump(study))
    assert main([*TRAIN, "--out", "trained"]) == 0
    return work


@pytest.mark.parametrize(("name", "n_kills"), [("train", 3), ("eval", 1), ("study", 1)])
def test_what_is_killed_a_few_times_ends_as_if_it_had_not_been(name, n_kills, prepared):
    assert survive(COMMANDS[name], prepared, n_kills, seed=0) >= 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "n_kills"), [("train", 25), ("eval", 15), ("study", 10)])
def test_what_is_killed_many_times_ends_as_if_it_had_not_been(name, n_kills, prepared, record_property):
    assert survive(COMMANDS[name], prepared, n_kills, seed=1) >= 2
    record_property("kills", n_kills)
