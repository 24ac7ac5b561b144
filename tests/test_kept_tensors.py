import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sae_lens_contrastive.kept_tensors import keep_tensors, kept_tensors


def never():
    pytest.fail("made twice")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "a.safetensors"


def test_tensors_are_made_once_for_each_thing_that_they_are_made_from(path):
    made = {"x": torch.arange(6).view(2, 3).T, "y": torch.zeros(0, 4)}
    for make in (lambda: made, never):
        kept = kept_tensors(path, "one", make)
        assert kept.keys() == made.keys()
        for name in made:
            assert torch.equal(kept[name], made[name])
    assert torch.equal(kept_tensors(path, "two", lambda: {"x": torch.ones(1)})["x"], torch.ones(1))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"fingerprint": "two"}


@pytest.mark.parametrize("damage", ["cut short", "empty", "of others"])
def test_a_file_that_is_not_whole_is_made_anew(path, damage):
    keep_tensors(path, "one", lambda: {"x": torch.ones(9)})
    content = path.read_bytes()
    path.unlink()
    if damage == "of others":
        save_file({"x": torch.zeros(9)}, path)
    else:
        path.write_bytes(content[:-1] if damage == "cut short" else b"")
    assert torch.equal(kept_tensors(path, "one", lambda: {"x": torch.ones(9)})["x"], torch.ones(9))


def test_those_who_wait_are_told_and_find_what_another_made(path, capsys):
    working, go_on = threading.Event(), threading.Event()
    found = []

    def slowly():
        working.set()
        assert go_on.wait(60)
        return {"x": torch.ones(3)}

    def wait_for_it():
        found.append(kept_tensors(path, "one", never)["x"].sum().item())

    first = threading.Thread(target=kept_tensors, args=(path, "one", slowly))
    first.start()
    assert working.wait(60)
    others = [threading.Thread(target=wait_for_it) for _ in range(7)]
    for other in others:
        other.start()
    told = ""
    while told.count("waiting for it") < len(others):
        told += capsys.readouterr().err
        time.sleep(0.01)
    go_on.set()
    for thread in (first, *others):
        thread.join(60)
    assert found == [3.0] * 7


def test_a_failure_leaves_nothing_and_the_next_may_try(path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_tensors(path, "one", fail)
    assert not path.exists()
    assert kept_tensors(path, "one", lambda: {"x": torch.ones(1)})["x"].tolist() == [1.0]


def test_what_a_killed_process_left_is_removed(path):
    path.parent.mkdir()
    left = path.with_name(f".{path.name}.x81h2k")
    left.write_bytes(b"a part")
    keep_tensors(path, "one", lambda: {"x": torch.ones(1)})
    assert not left.exists()
    assert path.exists()
