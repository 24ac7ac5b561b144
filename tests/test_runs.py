import subprocess
import sys
from contextlib import contextmanager

import pytest
from filelock import FileLock, Timeout

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.files import read_json
from sae_lens_contrastive.runs import claim_folder, hold_folder, let_go_below, nothing_left_if_refused

CONFIG = {"seed": 0, "training": {"lr": 0.001, "tokens": 10}}


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_or_empty_folder_is_claimed(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path / "empty"):
        if folder.name == "empty":
            folder.mkdir()
        assert claim_folder(folder, "train", CONFIG) == folder
        assert read_json(folder / "run.json") == {"kind": "train", "config": CONFIG}


def test_the_same_run_comes_back_to_its_folder(tmp_path):
    claim_folder(tmp_path / "a", "train", CONFIG)
    (tmp_path / "a" / "sae").mkdir()
    assert claim_folder(tmp_path / "a", "train", CONFIG) == tmp_path / "a"


@pytest.mark.parametrize(
    ("kind", "config", "difference"),
    [
        ("train", {**CONFIG, "seed": 1}, "config.seed is 0 there and 1 here"),
        ("train", {"seed": 0, "training": {"lr": 0.1, "tokens": 10}}, "config.training.lr is 0.001 there and 0.1 here"),
        ("train", {"seed": 0}, "config.training is .* there and None here"),
        ("eval", CONFIG, "kind is 'train' there and 'eval' here"),
    ],
)
def test_another_run_is_refused_with_the_first_difference(tmp_path, kind, config, difference):
    claim_folder(tmp_path / "a", "train", CONFIG)
    before = _contents(tmp_path)
    with pytest.raises(UserError, match=rf"holds another run \({difference}\).*--out"):
        claim_folder(tmp_path / "a", kind, config)
    assert _contents(tmp_path) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty and holds no run\.json.*--out"):
        claim_folder(tmp_path, "train", CONFIG)
    assert _contents(tmp_path).keys() == {(tmp_path / "thesis.txt").relative_to(tmp_path)}


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match=r"is a file\. Give a folder with --out"):
        claim_folder(tmp_path / "a", "train", CONFIG)


def test_a_damaged_run_file_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json is not a readable JSON file"):
        claim_folder(tmp_path, "train", CONFIG)


def _claim(out, *claims, then=None, end):
    with nothing_left_if_refused(out):
        for folder in claims:
            claim_folder(folder, "train", CONFIG)
        if then is not None:
            then.write_text("{}")
        raise end


def test_a_late_refusal_takes_its_claims_back(tmp_path):
    out = tmp_path / "new" / "out"
    with pytest.raises(UserError, match="too late"):
        _claim(out, out, out / "train" / "a", out / "b", end=UserError("too late"))
    assert list(tmp_path.iterdir()) == []


def test_a_late_refusal_leaves_what_was_there_and_what_was_done(tmp_path):
    out = tmp_path / "out"
    claim_folder(out / "old", "train", CONFIG)
    (out / "empty").mkdir()
    with pytest.raises(UserError, match="too late"):
        _claim(out, out / "old", out / "a", out / "b", then=out / "a" / "summary.json", end=UserError("too late"))
    left = {str(path.relative_to(out)) for path in out.rglob("*") if not path.name.startswith(".")}
    assert left == {"old", "old/run.json", "empty", "a", "a/run.json", "a/summary.json"}


def test_an_interruption_keeps_the_claim_so_that_the_run_can_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _claim(tmp_path / "a", tmp_path / "a", end=KeyboardInterrupt())
    assert (tmp_path / "a" / "run.json").is_file()
    assert claim_folder(tmp_path / "a", "train", CONFIG) == tmp_path / "a"


def test_a_late_refusal_leaves_what_another_process_claimed_in_the_meantime(tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(UserError, match="Another process is at work"),
        nothing_left_if_refused(out),
        _another_process(out, "alone"),
    ):
        claim_folder(out, "train", {"seed": 0})
    assert (out / "run.json").is_file()


def test_what_a_process_leaves_that_is_killed_while_it_claims_a_folder_is_no_obstacle(tmp_path):
    (tmp_path / ".run.json.a8s7").write_text('{"kind": "tra')
    claim_folder(tmp_path, "train", CONFIG)
    assert not (tmp_path / ".run.json.a8s7").exists()


_AT_WORK = """
import sys
from sae_lens_contrastive.runs import claim_folder
claim_folder(sys.argv[1], "train", {"seed": 0}, alone=sys.argv[2] == "alone")
print("claimed", flush=True)
sys.stdin.read()
"""


@contextmanager
def _another_process(folder, alone):
    with subprocess.Popen(
        [sys.executable, "-c", _AT_WORK, str(folder), alone], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path):
    with _another_process(tmp_path / "a", "alone") as first:
        with pytest.raises(UserError, match=r"Another process is at work in .*a\. Wait"):
            claim_folder(tmp_path / "a", "train", {"seed": 0})
        first.kill()
        first.wait()
        assert claim_folder(tmp_path / "a", "train", {"seed": 0}) == tmp_path / "a"


def test_several_processes_may_work_in_a_folder_that_says_so(tmp_path):
    with _another_process(tmp_path / "a", "together"):
        claim_folder(tmp_path / "a", "train", {"seed": 0}, alone=False)
        hold_folder(tmp_path / "a/part")
        hold_folder(tmp_path / "a/part")


def test_folders_that_were_let_go_are_free_and_their_neighbours_are_not(tmp_path):
    for name in ("jobs/a", "jobs/a/train", "jobs/ab"):
        claim_folder(tmp_path / name, "train", {"seed": 0})
    let_go_below(tmp_path / "jobs/a")
    for name in ("jobs/a", "jobs/a/train"):
        with FileLock(tmp_path / name / ".lock").acquire(timeout=0):
            pass
    with pytest.raises(Timeout):
        FileLock(tmp_path / "jobs/ab/.lock").acquire(timeout=0)
