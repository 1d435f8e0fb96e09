"""One job, three ways: an embedded Ray, a running cluster by RAY_ADDRESS, and `ray job submit`. The same LoRA.

And a scorer of the user's, which the cluster's machines do not have.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node with a dashboard, as `ray start` makes it; yields what a client's environment needs."""
    port, dashboard = free_port(), free_port()
    # Off on every side: a token would have to be on disk for head, command line and driver alike.
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    log = (tmp_path_factory.mktemp("head") / "head.log").open("wb")
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"),
        *(f"--dashboard-port={dashboard}", "--num-cpus=8", "--disable-usage-stats"),
    ]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd="/")
    try:
        yield environment | {"ADDRESS": f"127.0.0.1:{port}", "DASHBOARD": f"http://127.0.0.1:{dashboard}"}
    finally:
        # Its own process group: `ray stop` would kill every Ray on the machine.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        log.close()


def job(output: Path) -> list[str]:
    settings = (
        *("--model", "stub", "--reward", "stub", "--prompts", "animals", "--iterations", "2", "--seed", "3"),
        *("--output", str(output), "--name", "job", "--rollout.tickets_per_iteration", "4"),
        *("--train.optimizer_steps", "2", "--evaluation.num_prompts", "2", "--sampler.num_steps", "20"),
        *("--rollout.samples_per_ticket", "2"),
    )
    return ["jobs/tailorpo_sdxl.py", *settings]


def policy(output: Path) -> dict[str, np.ndarray]:
    return load_file(output / "job" / "checkpoints" / "iteration-000002" / "policy.safetensors")


def test_the_same_lora_three_ways(head: dict[str, str], tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ways = {
        "embedded": ([sys.executable, *job(tmp_path / "embedded")], plain),
        "address": ([sys.executable, *job(tmp_path / "address")], head | {"RAY_ADDRESS": head["ADDRESS"]}),
        "submitted": (
            [
                *(str(BIN / "ray"), "job", "submit", "--address", head["DASHBOARD"], "--working-dir", str(ROOT)),
                *("--runtime-env-json", '{"excludes": [".git", ".venv", "runs", "tests"]}', "--", sys.executable),
                *job(tmp_path / "submitted"),
            ],
            head,
        ),
    }
    for way, (command, environment) in ways.items():
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{way}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        lines = done.stdout.splitlines()
        assert sum(line.startswith("iteration ") for line in lines) == 2, f"{way}:\n{done.stdout}"
        assert any("report.html" in line for line in lines)
    embedded, address, submitted = (policy(tmp_path / way) for way in ways)
    for name, value in embedded.items():
        assert np.array_equal(value, address[name])
        assert np.array_equal(value, submitted[name])


OWN = """
import numpy as np

from own_package.parts import LEVELS

class Brightness:
    differentiable = False
    needs_prompt = False
    unit = "mean grey level"

    def score(self, images_BCHW, prompts):
        return np.array([image.astype(np.float64).mean() * LEVELS for image in images_BCHW], dtype=np.float32)
"""


def test_a_users_scorer_reaches_the_workers_of_a_cluster(head: dict[str, str], tmp_path: Path) -> None:
    mine, pictures = tmp_path / "mine", tmp_path / "pictures"
    (mine / "own_package").mkdir(parents=True)
    (mine / "own_package" / "parts.py").write_text("LEVELS = 255")
    (mine / "own_package" / "scorer.py").write_text(OWN)
    pictures.mkdir()
    for level in (10, 20):
        Image.new("RGB", (8, 8), (level, level, level)).save(pictures / f"{level}.png")
    score = [sys.executable, str(ROOT / "jobs" / "score.py"), str(pictures), "--pool.cpus", "0.5"]
    score += ["--scorer", "own_package.scorer:Brightness", "--output"]
    submit = [str(BIN / "ray"), "job", "submit", "--address", head["DASHBOARD"], "--working-dir", str(mine), "--"]
    # On the driver's path alone: what the head was started with does not have it.
    seen_by_driver = {"RAY_ADDRESS": head["ADDRESS"], "PYTHONPATH": f"{ROOT}:{mine}"}
    ways = {
        "address": ([*score, str(tmp_path / "address")], head | seen_by_driver),
        "submitted": ([*submit, *score, str(tmp_path / "submitted")], head),
    }
    for way, (command, environment) in ways.items():
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{way}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        table = pq.read_table(tmp_path / way / "scores")
        assert table["own_package.scorer:Brightness"].to_pylist() == pytest.approx([10, 20])
