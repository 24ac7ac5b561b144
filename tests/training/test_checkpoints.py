"""Checkpoint folders: whole or absent, checked before they are used, two of them kept."""

import errno
import json

import pytest
from safetensors import SafetensorError

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.training.checkpoints import checkpoints, damage, new_checkpoint, newest_whole, remove_newer

RUNS = {"variant": "hash"}


def write(folder, name, content=b"weights", runs=RUNS):
    with new_checkpoint(folder, name) as partial:
        (partial / "variant").mkdir()
        (partial / "variant/weights").write_bytes(content)
        (partial / "runs.json").write_text(json.dumps(runs))


def test_the_newest_two_are_kept_in_the_order_of_their_tokens(tmp_path):
    for name in ("900", "1000", "2000"):
        write(tmp_path, name)
    assert [path.name for path in checkpoints(tmp_path)] == ["1000", "2000"]
    assert newest_whole([tmp_path], RUNS) == tmp_path / "2000"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "variant/weights").write_bytes(b"weighty"),
            "variant/weights is not what was written",
        ),
        (lambda folder: (folder / "variant/weights").write_bytes(b""), "variant/weights is not what was written"),
        (lambda folder: (folder / "variant/weights").unlink(), "variant/weights is missing"),
        (lambda folder: (folder / "checksums.json").write_text("{"), "no readable checksums.json"),
        (lambda folder: (folder / "checksums.json").write_text("{}"), "names no files"),
        (lambda folder: (folder / "checksums.json").unlink(), "no readable checksums.json"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(spoil, said, tmp_path, capsys):
    write(tmp_path, "1")
    write(tmp_path, "2")
    assert damage(tmp_path / "2") is None
    spoil(tmp_path / "2")
    assert newest_whole([tmp_path], RUNS) == tmp_path / "1"
    told = capsys.readouterr().err
    assert said in told
    assert str(tmp_path / "2") in told


def test_without_a_whole_checkpoint_there_is_none(tmp_path):
    assert newest_whole([tmp_path], RUNS) is None
    write(tmp_path, "1")
    (tmp_path / "1/variant/weights").unlink()
    assert newest_whole([tmp_path], RUNS) is None


def test_only_checkpoints_of_the_same_runs_are_used(tmp_path):
    write(tmp_path / "pair", "2", runs={**RUNS, "another": "one"})
    write(tmp_path / "alone", "1")
    folders = list(tmp_path.iterdir())
    assert newest_whole(folders, RUNS) == tmp_path / "pair/2"
    assert newest_whole(folders, {**RUNS, "another": "one"}) == tmp_path / "pair/2"
    assert newest_whole(folders, {"variant": "of other figures"}) is None
    assert newest_whole(folders, {**RUNS, "third": "one"}) is None
    (tmp_path / "pair/2/runs.json").write_text("[]")
    assert newest_whole(folders, RUNS) == tmp_path / "alone/1"


@pytest.mark.parametrize("n_damaged", [1, 2])
def test_what_is_not_gone_on_from_does_not_displace_what_is_written_next(n_damaged, tmp_path):
    for name in ("800", "900"):
        write(tmp_path, name)
    for name in ("900", "800")[:n_damaged]:
        (tmp_path / name / "variant/weights").unlink()
    found = newest_whole([tmp_path], RUNS)
    remove_newer(tmp_path, found)
    write(tmp_path, "850" if n_damaged == 1 else "100")
    assert [path.name for path in checkpoints(tmp_path)] == (["800", "850"] if n_damaged == 1 else ["100"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_a_full_disk_is_said_and_leaves_what_was_there_before(error, tmp_path):
    write(tmp_path, "1")

    def fill():
        with new_checkpoint(tmp_path, "2") as partial:
            (partial / "half").write_bytes(b"half of it")
            raise error

    with pytest.raises(UserError, match=r"no room to write .*2\. Free some space"):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_any_other_failure_stays_what_it_is(tmp_path):
    def fail():
        with new_checkpoint(tmp_path, "1"):
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_there_is_replaced(tmp_path):
    write(tmp_path, "1", b"old")
    write(tmp_path, "1", b"new")
    assert (tmp_path / "1/variant/weights").read_bytes() == b"new"
    assert damage(tmp_path / "1") is None
