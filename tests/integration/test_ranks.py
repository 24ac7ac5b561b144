"""`train` by several ranks: one that is lost stops the others, and the same command, by any number of them, goes on."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from processes import contents, ended, started
from safetensors.torch import load_file

from sae_lens_contrastive.cli import main

TRAIN = ["train", "target.yaml", "ranks.yaml", "--out", "out", "--set", "training.n_checkpoints=8"]
MECHANISMS = {
    "loss_terms": {
        "group_contrastive": {"coefficient": 0.1},
        "forget_margin": {"coefficient": 1.0, "n_features": 4},
        "supervised_contrastive": {"coefficient": 0.1},
        "output_kl": {"coefficient": 0.1, "every_n_steps": 10, "n_sequences": 1, "n_features": 4},
    },
    "grouping": {"every_n_steps": 5, "window_tokens": 256, "percentile": 75},
    "importance": {"every_n_steps": 5},
    "pruning": {"share": 0.1, "threshold": 0.5, "every_n_steps": 10, "start_step": 0},
    "reinitialisation": {"every_n_steps": 10},
}
LOST = "cannot reach another rank any more"


@pytest.fixture
def working(prepared):
    target = yaml.safe_load(Path("target.yaml").read_text())
    # Streamed, so that the ranks share the model's batches; long enough to be killed in the midst of, and short enough
    # for there to be no probe of the domains: a training that goes on gathers its tokens anew.
    target["training"] |= {"cache_tokens": 0, "training_tokens": 7_680, "n_batches_in_buffer": 16}
    Path("target.yaml").write_text(yaml.safe_dump(target))
    Path("ranks.yaml").write_text(yaml.safe_dump({"sae": MECHANISMS}))
    return prepared


def as_rank(number, n, port):
    """What torchrun tells the processes that it starts."""
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": n, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    os.environ.update({name: str(value) for name, value in told.items()} | {"TORCHELASTIC_RUN_ID": "test"})


def ranks_started(n, folder, arguments=TRAIN):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        started(arguments, folder, partial(as_rank, number, n, port), folder / f"said{number}") for number in range(n)
    ]


def exit_codes(ranks):
    for process in ranks:
        process.join()
    return [process.exitcode for process in ranks]


def wait_for_checkpoint(folder, n=1):
    while len([path for path in folder.glob("out/checkpoints/*/*") if path.name.isdigit()]) < n:
        time.sleep(0.02)


def weights(out):
    return load_file(out / "ranks/sae/sae_weights.safetensors")


def assert_close(out, expected):
    for name, tensor in expected.items():
        assert (weights(out)[name] - tensor).abs().max() <= 1e-5, name


def test_a_lost_rank_stops_the_others_and_one_rank_goes_on_to_the_same_end(working):
    assert ended(TRAIN, working) == 0
    expected = weights(working / "out")
    shutil.rmtree("out")
    ranks = ranks_started(2, working)
    wait_for_checkpoint(working)
    ranks[1].kill()
    assert exit_codes(ranks) == [3, -signal.SIGKILL]
    said = Path("said0").read_text()
    assert LOST in said
    assert "Run the same command again" in said
    assert "Traceback" not in said
    assert not Path("out/ranks/summary.json").exists()
    assert ended(TRAIN, working) == 0
    assert_close(working / "out", expected)


def test_only_train_runs_by_ranks(monkeypatch, tmp_path, capsys):
    as_rank_in_this_process = {"WORLD_SIZE": "2", "RANK": "1", "TORCHELASTIC_RUN_ID": "test"}
    for name, value in as_rank_in_this_process.items():
        monkeypatch.setenv(name, value)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "rank 1: torchrun has started 2 ranks, which only `train` can use" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e+12"])
def test_a_timeout_is_more_than_nothing_and_has_an_end(working, capsys, seconds):
    assert main([*TRAIN, "--rank-timeout", seconds]) == 2
    assert f"--rank-timeout is {seconds}. Give more than 0 seconds, a year at most." in capsys.readouterr().err


@pytest.mark.slow
def test_ranks_refuse_to_prefetch(working):
    ranks = ranks_started(
        2, working, [*TRAIN, "--set", "training.prefetch_llm_batches=true", "--set", "sae.loss_terms={}"]
    )
    assert exit_codes(ranks) == [2, 2]
    assert "Set prefetch_llm_batches: false" in Path("said0").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("cache_tokens", [0, 512], ids=["streamed", "collected"])
def test_two_ranks_end_as_one_does_and_only_the_first_one_speaks(cache_tokens, working):
    command = [*TRAIN, "--set", f"training.cache_tokens={cache_tokens}"]
    assert ended(command, working) == 0
    expected, names = weights(working / "out"), set(contents(working / "out"))
    shutil.rmtree("out")
    assert exit_codes(ranks_started(2, working, command)) == [0, 0]
    assert_close(working / "out", expected)
    assert set(contents(working / "out")) == names
    assert "explained variance" in Path("said0").read_text()
    assert Path("said1").read_text() == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_that_is_stuck_stops_the_others_in_time(working):
    ranks = ranks_started(2, working, [*TRAIN, "--rank-timeout", "10"])
    wait_for_checkpoint(working)
    os.kill(ranks[1].pid, signal.SIGSTOP)
    ranks[0].join()
    assert ranks[0].exitcode == 3
    assert LOST in Path("said0").read_text()
    ranks[1].kill()
    ranks[1].join()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigterm_ends_all_ranks_after_one_checkpoint(working):
    assert exit_codes(ranks_started(2, working)) == [0, 0]
    whole = contents(working / "out")
    shutil.rmtree("out")
    ranks = ranks_started(2, working)
    wait_for_checkpoint(working)
    # At other moments of other steps.
    for process in ranks:
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.05)
    assert exit_codes(ranks) == [130, 130]
    assert exit_codes(ranks_started(2, working)) == [0, 0]
    assert contents(working / "out") == whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ranks_that_are_killed_many_times_end_as_if_they_had_not_been(working, record_property):
    assert exit_codes(ranks_started(2, working)) == [0, 0]
    whole, rng = contents(working / "out"), random.Random(0)
    shutil.rmtree("out")
    n_kills = 10
    for _ in range(n_kills):
        ranks = ranks_started(2, working)
        ranks[rng.randrange(2)].join(rng.uniform(2, 12))
        victim = rng.randrange(2)
        if ranks[victim].is_alive():
            ranks[victim].kill()
        codes = exit_codes(ranks)
        if codes == [0, 0]:
            assert contents(working / "out") == whole
            shutil.rmtree("out")
        else:
            assert codes[1 - victim] in (0, 2, 3)
    assert exit_codes(ranks_started(2, working)) == [0, 0]
    assert contents(working / "out") == whole
    record_property("kills", n_kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_torchrun_starts_again_after_a_kill_and_ends_as_if_there_had_been_none(working, record_property):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "3"]
    command = [*torchrun, "-m", "sae_lens_contrastive", *TRAIN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    whole = contents(working / "out")
    shutil.rmtree("out")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as agent:
        wait_for_checkpoint(working)
        of_agent = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        os.kill(int(of_agent[-1]), signal.SIGKILL)
        assert agent.stderr is not None
        said = agent.stderr.read()
    assert agent.returncode == 0, said
    assert re.search(r"exitcode: -9", said)
    assert contents(working / "out") == whole
    record_property("kills", 1)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_end_as_one_does(working):
    command = [*TRAIN, "--set", "device=cuda"]
    assert ended(command, working) == 0
    expected = weights(working / "out")
    shutil.rmtree("out")
    assert exit_codes(ranks_started(2, working, command)) == [0, 0]
    for name, tensor in expected.items():
        torch.testing.assert_close(weights(working / "out")[name], tensor, rtol=1e-3, atol=1e-3)
