"""What a run reads, damaged: refused by name before anything starts. No cluster in these tests but in the sample."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.pipeline.output_check import check_output
from rayalign.pipeline.resume import check_resume
from rayalign.pipeline.validate import check_inputs, with_absolute_paths
from tests.damaged_files import BASE, WAYS, Damaged, damaged_files

ROOT = Path(__file__).parents[2]
MAX_S = 20.0


def settings(damaged: Damaged, output: Path) -> RunConfig:
    return RunConfig.model_validate({"output": str(output), "name": "run", **BASE, **damaged.settings})


def check(config: RunConfig) -> None:
    """What `run` does before it connects to Ray."""
    config = with_absolute_paths(config)
    check_inputs(config)
    check_resume(config)
    check_output(config)


def test_100_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    for damaged in damaged_files(tmp_path, 100):
        start = time.monotonic()
        with pytest.raises(ConfigError) as caught:
            check(settings(damaged, tmp_path / "runs"))
        said = str(caught.value)
        assert any(word in said for word in damaged.says), f"{damaged.how}: {said}"
        assert time.monotonic() - start < MAX_S, damaged.how
    assert not (tmp_path / "runs").exists()


def started(name: str, folder: Path, settings: dict[str, Any]) -> str:
    """A job as a user starts it; it must end with one line about the input, and leave no process behind."""
    file, mark = folder / f"{name}.yaml", uuid.uuid4().hex
    file.write_text(yaml.safe_dump({"output": str(folder / "runs"), "name": "run", **BASE, **settings}))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "tailorpo_sdxl.py"), "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAYALIGN_MARK": mark},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "error: " in done.stderr
    # Of the processor, not of the clock: other tests may be running.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MAX_S
    assert [process for process in psutil.process_iter() if _has(process, mark)] == []
    return last


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("RAYALIGN_MARK") == mark
    except psutil.Error:
        return False


def test_a_job_on_a_damaged_file_ends_with_one_line(tmp_path: Path) -> None:
    damaged = next(found for found in damaged_files(tmp_path, 8) if "prompts" in found.settings)
    assert started("job", tmp_path, damaged.settings).startswith("error: prompts.source = ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_so_do_jobs_on_each_kind_of_damage(tmp_path: Path) -> None:
    for number, damaged in enumerate(damaged_files(tmp_path, len(WAYS), seed=3)):
        said = started(f"job{number}", tmp_path, damaged.settings)
        assert any(word in said for word in damaged.says), f"{damaged.how}: {said}"


def test_duplicates_are_told(tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("a cat\na dog\n\na cat\n")
    config = RunConfig.model_validate({**BASE, "prompts": {"source": str(prompts)}})
    told = f"warning: {prompts}: 1 lines stand there already and are drawn once, 1 lines are empty; 2 distinct prompts"
    assert check_inputs(config) == [told]


def test_a_step_without_noise_is_refused_before_anything_starts() -> None:
    config = RunConfig.model_validate({**BASE, "model": {"path": "toy-sd3"}, "pairs": {"tuned_steps": [4, 1]}})
    with pytest.raises(ConfigError, match="step 1 of this model's schedule adds no noise"):
        check_inputs(config)
    config = RunConfig.model_validate({**BASE, "sampler": {"num_steps": 2000}})
    with pytest.raises(ConfigError, match=r"sampler.num_steps = 2000: this model's schedule does not take it"):
        check_inputs(config)
