"""A user's own scorer from a folder of its own, by the job that a user starts there: refused, corrected, trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RIGHT = """
import numpy as np

class Brightness:
    differentiable = False
    needs_prompt = False
    unit = "mean pixel value times gain"

    def __init__(self, gain):
        self.gain = gain

    def score(self, images_BCHW, prompts):
        means = [image.astype(np.float64).mean() for image in images_BCHW]
        return np.array(means, dtype=np.float32) * np.float32(self.gain)
"""
WRONG = RIGHT.replace("np.float32(self.gain)", "np.ones((1, len(means)), dtype=np.float32)")
SETTINGS = """
rewards:
- scorer: my_package.my_module:Brightness
  options: {gain: 2.0}
evaluation: {scorers: [stub], num_prompts: 2, seeds_per_prompt: 1}
model: {path: stub}
iterations: 1
rollout: {samples_per_ticket: 2, tickets_per_iteration: 4}
"""


def start(folder: Path) -> subprocess.CompletedProcess:
    """Nothing on PYTHONPATH but what finds the package that is tested; no working folder but the user's."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, str(ROOT / "jobs" / "tailorpo_sdxl.py"), "--config", "run.yaml", "--name", "own"]
    environment = plain | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "run.yaml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)  # two whole jobs
def test_a_wrong_shape_is_told_before_any_training_and_corrected_it_trains(folder: Path) -> None:
    module = folder / "my_package" / "my_module.py"
    module.write_text(WRONG)
    refused = start(folder)
    assert refused.returncode == 1, refused.stderr
    assert "Traceback" not in refused.stderr
    said = "scorer my_package.my_module:Brightness did not start: Brightness.score gave shape (1, 2) for 2 images"
    assert said in refused.stderr
    assert "give a float32 numpy array of shape (2,), in the order of the images" in refused.stderr
    assert "`rayalign scorers check my_package.my_module:Brightness`" in refused.stderr
    assert not (folder / "runs" / "own" / "images").exists()  # nothing was drawn, let alone trained

    module.write_text(RIGHT)
    trained = start(folder)
    assert trained.returncode == 0, trained.stderr[-3000:]
    summary = json.loads((folder / "runs" / "own" / "summary.json").read_text())
    reward = summary["reward"]
    assert summary["num_iterations"] == 1
    assert summary["num_pairs"]["kept"] > 0
    # The option of the config arrived: twice what the brightness scorer that ships says of the same pictures.
    mine, theirs = (reward[name]["before"]["mean"] for name in ("my_package.my_module:Brightness", "stub"))
    assert mine == pytest.approx(2 * theirs, rel=1e-5)
