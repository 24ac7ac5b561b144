"""A sweep on a Ray cluster of several nodes on this machine, one of which is killed half-way."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from made_sweeps import COEFFICIENT, K, tiny_sweep

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.files import read_json

GRID = {K: [4, 8, 16], COEFFICIENT: [1, 10]}
N_JOBS = 6
_MEMORY = 80 * 2**20


@contextmanager
def cluster_of(n_nodes):
    """A cluster whose head does no jobs, and nodes that do one job at a time."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": _MEMORY})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=_MEMORY) for _ in range(n_nodes)]
        cluster.wait_for_nodes()
        yield cluster, nodes
    finally:
        cluster.shutdown()


def started(*arguments):
    """The command as a process of its own, which prints for machines."""
    command = [sys.executable, "-m", "sae_lens_contrastive.cli", "sweep", "sweep.yaml", "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said_by(process):
    said, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(said)


def stamps(out, pattern):
    """Identity and time of files, which say whether one was written again."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path(out).glob(pattern)}


def half_way(process, out):
    """Wait until two jobs are done and a third runs; the node of the third and what is done."""
    while process.poll() is None:
        time.sleep(0.2)
        done = stamps(out, "jobs/*/job.json")
        begun = {path.parent: read_json(path)["node"] for path in Path(out).glob("jobs/*/attempt.json")}
        running = [node for folder, node in begun.items() if folder / "job.json" not in done]
        if len(done) >= 2 and running:
            return running[0], done
    raise AssertionError(f"The sweep ended before it was half-way, with {process.returncode}.")


def without_times(rows):
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def weights(out):
    found = Path(out).glob("jobs/*/train/*/sae/sae_weights.safetensors")
    return {path.relative_to(out): path.read_bytes() for path in found}


@pytest.fixture
def cluster_work(tmp_path, monkeypatch, model_cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # The threads that a worker of Ray has.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Where a node looks for this package.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    Path("sweep.yaml").write_text(yaml.safe_dump(tiny_sweep(grid=GRID)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_node_is_killed_half_way_and_nothing_is_lost_or_done_twice(cluster_work, capsys, record_property):
    with cluster_of(2) as (cluster, nodes):
        process = started("--ray-address", cluster.address, "--out", "out")
        place, done = half_way(process, "out")
        activations = stamps("out", "activations/*/*.safetensors")
        (killed,) = [node for node in nodes if place.endswith(node.node_id[:8])]
        cluster.remove_node(killed, allow_graceful=False)
        jobs = said_by(process)
    assert [job["trial"] for job in jobs] == list(range(N_JOBS))
    assert {job["error"] for job in jobs} == {None}
    # One attempt was lost, with the node; the jobs that were done stayed as they were, and each was done once.
    assert sum(job["n_failures"] for job in jobs) == 1
    (failures,) = [read_json(path) for path in Path("out").glob("jobs/*/failures.json")]
    assert failures[0]["error"].startswith(("NodeDiedError", "WorkerCrashedError"))
    final = stamps("out", "jobs/*/job.json")
    assert len(final) == N_JOBS
    assert final.items() >= done.items()
    logs = [path.read_text() for path in Path("out").glob("jobs/*/log.txt")]
    attempts = [place for log in logs for place in re.findall(r"^attempt \d+ on \S+/(\w+),", log, re.MULTILINE)]
    assert len(attempts) == N_JOBS + 1
    # Both nodes were at work, on activations that one of them had generated.
    assert set(attempts) == {node.node_id[:8] for node in nodes}
    assert activations
    assert stamps("out", "activations/*/*.safetensors") == activations
    for domain in ("general", "forget", "retain"):
        assert sum(f"Activations of {domain} text" in log for log in logs) == 1

    alone = said_by(started("--out", "alone"))
    assert [job["job"] for job in alone] == [job["job"] for job in jobs]
    assert without_times(read_json("alone/results.json")) == without_times(read_json("out/results.json"))
    assert len(weights("out")) == N_JOBS
    assert weights("alone") == weights("out")

    # Without Ray it goes on from what the cluster left: here there is nothing to do.
    assert main(["sweep", "sweep.yaml", "--out", "out"]) == 0
    assert stamps("out", "jobs/*/job.json") == final
    assert f"{N_JOBS} of {N_JOBS}: trial" in capsys.readouterr().out
    record_property("kills", 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_is_killed_and_one_process_goes_on(cluster_work):
    with cluster_of(1) as (cluster, _):
        process = started("--ray-address", cluster.address, "--out", "out")
        _, done = half_way(process, "out")
        process.kill()
        process.communicate()
        jobs = said_by(started("--out", "out"))
    assert {job["error"] for job in jobs} == {None}
    assert sum(job["n_failures"] for job in jobs) == 0
    final = stamps("out", "jobs/*/job.json")
    assert len(final) == N_JOBS
    assert final.items() >= done.items()
    assert len({job["node"] for job in jobs}) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x", "nowhere.invalid:6379"])
def test_an_address_without_a_cluster_is_refused(cluster_work, capsys, address):
    assert main(["sweep", "sweep.yaml", "--ray-address", address, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert f"No Ray cluster at --ray-address {address}: " in said
    assert "ray start --head" in said
    assert not Path("out").exists()
