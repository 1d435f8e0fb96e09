"""Nodes that die or are about to, signals, silence: jobs in a cluster of three nodes. Each takes a minute or more."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rayalign.evaluation.history import read_history

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_cluster import FaultCluster, holds
from faults import SETTINGS, Job, num_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STUB = {"model": "stub:denoise_s=0.05,train_s=0.05", "reward": "stub", **SETTINGS}


@pytest.fixture
def cluster() -> Iterator[FaultCluster]:
    with FaultCluster() as found:
        yield found


def wait_for(what: str, condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def start(cluster: FaultCluster, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts a run that has done three iterations when this comes back."""
    jobs: list[Job] = []

    def begin(**changes: Any) -> Job:
        jobs.append(Job(cluster.address, tmp_path, "run", STUB | changes))
        wait_for("three iterations", lambda: len(read_history(tmp_path / "run")) >= 3)
        return jobs[-1]

    yield begin
    for job in jobs:
        job.process.kill()


def test_sigterm_says_where_it_stopped_and_leaves_no_actor(
    cluster: FaultCluster, start: Callable[..., Job], tmp_path: Path
) -> None:
    job = start(iterations=500)
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(60) == 143
    done = len(read_history(tmp_path / "run"))
    assert f"stopped after iteration {done} of 500; the same command continues from there" in job.output()
    assert "Traceback" not in job.output()
    wait_for("no actor left", lambda: not cluster.actors(), 30)
    job.start()
    wait_for("it goes on", lambda: len(read_history(tmp_path / "run")) > done + 1)


def test_train_workers_leave_a_node_that_is_about_to_go(
    cluster: FaultCluster, start: Callable[..., Job], tmp_path: Path
) -> None:
    job = start(iterations=40)
    (node,) = [node for node in cluster.nodes if holds(node, "train worker")]
    notice = f"drain-node --address {cluster.address} --node-id {node.node_id} --reason DRAIN_NODE_REASON_PREEMPTION"
    ray = str(Path(sys.executable).with_name("ray"))
    subprocess.run(
        [ray, *notice.split(), "--reason-message", "spot", "--deadline-remaining-seconds", "300"], check=True
    )
    wait_for("train workers elsewhere", lambda: any(holds(n, "train worker") for n in cluster.nodes if n is not node))
    assert job.process.wait(300) == 0
    assert "the train workers left a node that is about to go" in job.output()


def test_fewer_train_workers_while_a_node_is_missing(
    cluster: FaultCluster, start: Callable[..., Job], tmp_path: Path
) -> None:
    # 2.5 of a node's 4 CPUs each: one to a node.
    elastic = {"placement.train.num": 2, "placement.train.min": 1, "placement.train.cpus": 2.5}
    job = start(**elastic, iterations=12, **{"placement.rollout.max": 1})
    assert [holds(node, "train worker") for node in cluster.nodes] == [True, True]
    cluster.kill_node(random.Random(0), replaced=False)
    (left,) = cluster.nodes
    done = len(read_history(tmp_path / "run"))
    wait_for("an iteration of one worker", lambda: len(read_history(tmp_path / "run")) > done + 1)
    assert holds(left, "train worker")
    assert job.process.wait(400) == 0
    history = read_history(tmp_path / "run")
    assert [record.iteration for record in history] == list(range(12))
    # Four tickets of two trajectories with two tuned steps, by two workers or by one.
    assert [num_pairs(record) for record in history] == [16] * 12


def test_a_board_that_falls_silent_for_good_is_named(cluster: FaultCluster, start: Callable[..., Job]) -> None:
    job = start(iterations=500, stall_timeout_s=60)
    cluster.find("board", random.Random(0)).suspend()
    assert job.process.wait(300) == 1
    assert "error: the PolicyBoard did not answer the driver for 60 s (stall_timeout_s)" in job.output()
