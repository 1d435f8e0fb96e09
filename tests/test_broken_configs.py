"""Every wrong config is refused by name, at once, and no run begins."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rayalign.errors import ConfigError
from rayalign.pipeline.validate import check_files
from tests.broken_configs import ROOT, WAYS, Broken, broken_configs, jobs, valid_tree

MAX_S = 20.0


def refusal(broken: Broken, capsys: pytest.CaptureFixture) -> str:
    """What the user reads. argparse's own refusals exit, ours are ConfigErrors: of settings, then of what they name."""
    with pytest.raises((ConfigError, SystemExit)) as caught:
        check_files(broken.job.parse(broken.arguments))
    if isinstance(caught.value, ConfigError):
        return str(caught.value)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_what_is_broken_was_valid_before() -> None:
    for job in jobs():
        for seed in range(4):
            assert valid_tree(job, random.Random(seed))["name"] == job.defaults["name"]


def test_500_broken_configs_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for broken in broken_configs(tmp_path, 500):
        start = time.monotonic()
        said = refusal(broken, capsys)
        assert any(word in said for word in broken.says), f"{broken.how}: {said}"
        assert len(said) < 3000
        assert time.monotonic() - start < MAX_S


def test_so_does_a_job_that_is_started(tmp_path: Path) -> None:
    """A process of its own: the last line is the error, the code 2, and it ends before torch or Ray are imported."""
    for broken in broken_configs(tmp_path, len(WAYS), seed=1):
        start = time.monotonic()
        command = [sys.executable, str(ROOT / "jobs" / f"{broken.job.name}.py"), *broken.arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONPROFILEIMPORTTIME": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
        took_s = time.monotonic() - start
        said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
        assert done.returncode == 2, broken.how
        assert "error: " in said
        assert "Traceback" not in said
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        assert "pydantic" in imported
        assert not imported & {"torch", "ray"}
        assert took_s < MAX_S
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".yaml"]  # no run's folder
