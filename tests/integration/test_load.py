"""Many processes over one cache, and a disk that fills."""

import resource
import shutil
from functools import partial

import pytest
from processes import contents, ended, started

from sae_lens_contrastive import kept_tensors

N_PROCESSES = 8
REFUSED = 2
EVAL = ["eval", "tiny.yaml", "--sae", "trained/plain/sae", "--cache", "cache"]
TRAIN = ["train", "target.yaml", "term.yaml", "--set", "training.n_checkpoints=2", "--out", "out"]


def list_made(place):
    """Write the name of every cached file that this process makes to `place`."""
    save = kept_tensors.save_file

    def save_and_list(tensors, path, metadata):
        with place.open("a") as file:
            file.write(path.name.split(".safetensors")[0] + "\n")
        return save(tensors, path, metadata)

    kept_tensors.save_file = save_and_list


def test_evaluations_at_once_over_one_cache_agree_and_make_nothing_twice(prepared, record_property):
    alone = ended([*EVAL, "--out", "alone", "--cache", "cache_alone"], prepared)
    made = prepared / "made"
    running = [
        started([*EVAL, "--out", f"out{i}"], prepared, partial(list_made, made), f"said{i}") for i in range(N_PROCESSES)
    ]
    for process in running:
        process.join()
    assert [alone, *(process.exitcode for process in running)] == [0] * (N_PROCESSES + 1)
    for i in range(N_PROCESSES):
        assert contents(prepared / f"out{i}") == contents(prepared / "alone")
    names = made.read_text().splitlines()
    assert len(names) == len(set(names)) == len(list((prepared / "cache").glob("*.safetensors")))
    assert len(names) >= 4
    said = "".join((prepared / f"said{i}").read_text() for i in range(N_PROCESSES))
    assert "Another process makes cache/" in said
    record_property("evaluations_at_once", N_PROCESSES)


def limit_files(n_bytes):
    """Let no file grow beyond a size, as a disk that is full would not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("arguments", [TRAIN, [*EVAL, "--out", "out"]], ids=["train", "eval"])
def test_a_disk_that_fills_is_said_and_the_same_command_goes_on(arguments, prepared, record_property):
    assert ended(arguments, prepared) == 0
    whole = contents(prepared / "out")
    for n_bytes in (0, 1000, 20_000):
        for name in ("out", "cache"):
            shutil.rmtree(prepared / name, ignore_errors=True)
        assert ended(arguments, prepared, partial(limit_files, n_bytes)) == REFUSED
        assert ended(arguments, prepared) == 0
        assert contents(prepared / "out") == whole
    record_property("full_disks", 3)
