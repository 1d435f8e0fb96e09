"""Scoring on a cluster with an autoscaler: a burst brings replicas and nodes, rest gives both back."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.pipeline.burst import CALLERS, CALLS_EACH, image_value
from tests.pipeline.fake_nodes import ROOT, fake_nodes

REPLICAS = 3
WAIT_S = 80.0  # at most, each way


@pytest.mark.slow
def test_a_burst_adds_replicas_and_nodes_and_rest_removes_both() -> None:
    with fake_nodes(node_cpus=1, max_nodes=REPLICAS, idle_s=3) as environment:
        command = [sys.executable, "-m", "tests.pipeline.burst", str(REPLICAS), str(WAIT_S)]
        driver = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert driver.returncode == 0, driver.stderr
    seen = json.loads(driver.stdout.splitlines()[-1])
    print({name: value for name, value in seen.items() if name != "scores"})

    assert seen["nodes_before"] == 0
    assert seen["started"] == [1, 1]  # replicas, nodes
    assert seen["grown"] == [REPLICAS, REPLICAS]
    assert seen["rested"] == [1, 1]

    assert len(seen["scores"]) == CALLERS
    for caller, scores in enumerate(seen["scores"]):
        assert len(scores) >= CALLS_EACH
        np.testing.assert_array_equal(scores, [image_value(caller, call) for call in range(len(scores))])
    assert seen["failures"] == {}
