"""Whose folder it is, and whether there is room. No cluster in these tests."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.pipeline.output_check import check_output, claim, stored_config
from rayalign.pipeline.validate import check_files, with_absolute_paths


def run_in(output: Path, **changes: Any) -> RunConfig:
    return RunConfig.model_validate({"output": str(output), "name": "run", **changes})


def refused(config: RunConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        check_output(config)
    return str(caught.value)


def test_the_folder_is_made_and_may_be_its_own_again(tmp_path: Path) -> None:
    config = run_in(tmp_path / "deep" / "runs")
    check_output(config)
    assert list(config.folder.iterdir()) == []
    (config.folder / "slurm-1.out").touch()  # before the run begins
    check_output(config)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    (config.folder / "notes.txt").touch()  # a person's, beside a run of ours
    check_output(config)
    assert stored_config(config.folder, RunConfig) == config


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("thesis.tex", "a.png", "b.png", "c.png"):
        (tmp_path / "run" / name).touch()
    assert "holds files that are no run's (a.png, b.png, c.png, ...); set another --name" in refused(run_in(tmp_path))
    assert len(list((tmp_path / "run").iterdir())) == 4


def test_what_a_style_job_prepares_is_a_runs_own(tmp_path: Path) -> None:
    (tmp_path / "run" / "images" / "before").mkdir(parents=True)
    (tmp_path / "run" / "events.out.tfevents.1").touch()
    check_output(run_in(tmp_path))


def test_pictures_of_another_model_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    """Of a run that ended before its first checkpoint, which no other check looks at."""
    before = tmp_path / "run" / "images" / "before"
    before.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(run_in(tmp_path).to_yaml())
    (before / "scores.json").touch()
    check_output(run_in(tmp_path, train={"lr": 0.5}, model={"tuning": {"rank": 8}}))
    said = refused(run_in(tmp_path, model={"path": "toy-sd15"}, sampler={"num_steps": 30}))
    assert "holds pictures drawn with other settings of model and sampler; set another --name" in said


def test_pictures_scored_with_other_options_are_not_taken_for_these(tmp_path: Path) -> None:
    """A held-out scorer's options decide nothing that is learned, so a resume would not be refused for them."""
    before = tmp_path / "run" / "images" / "before"
    before.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(run_in(tmp_path, evaluation={"scorers": ["stub"]}).to_yaml())
    (before / "scores.json").touch()
    check_output(run_in(tmp_path, evaluation={"scorers": [{"scorer": "stub", "options": {}}]}))  # the same
    red = {"scorer": "stub", "options": {"rule": "red"}}
    check_output(run_in(tmp_path, evaluation={"scorers": ["jpeg-large"]}))  # others: drawn again
    assert "holds pictures scored with other options of stub; set another --name" in refused(
        run_in(tmp_path, evaluation={"scorers": [red]})
    )
    quality = {"scorer": "jpeg", "options": {"quality": 5}}
    assert "other options of jpeg, stub" in refused(run_in(tmp_path, rewards=[quality], evaluation={"scorers": [red]}))


def test_a_held_out_scorers_options_are_checked_and_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = {"scorer": "clip", "options": {"model": "local-dir:./weights"}}
    with pytest.raises(ConfigError, match=r"rewards\.clip\.options\.model = 'local-dir:\./weights'"):
        check_files(run_in(tmp_path, evaluation={"scorers": [mine]}))
    (absolute,) = with_absolute_paths(run_in(tmp_path, evaluation={"scorers": [mine]})).evaluation.scorers
    assert absolute.options == {"model": f"local-dir:{tmp_path}/weights"}


def test_a_damaged_config_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("iterations: many")
    assert "config.yaml': is no run's config.yaml (iterations: Input should be a valid int" in refused(run_in(tmp_path))


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written to (Not a directory); make room, or set another --output" in refused(
        run_in(tmp_path / "file")
    )
    (tmp_path / "run").touch()
    assert "cannot be written to (File exists)" in refused(run_in(tmp_path))
    assert "cannot be written to" in refused(run_in(Path("/proc/nobody")))
    assert "cannot be written to (File name too long)" in refused(run_in(tmp_path, name="a" * 300))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = refused(run_in(tmp_path))
    assert f"output = '{tmp_path}'" in said
    assert "cannot be written to (No space left on device); make room, or set another --output" in said


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """A real one, of the operating system: files of 100 kB at most."""
    code = (
        "import resource; from pathlib import Path\n"
        "from tests.pipeline.test_output_check import refused, run_in\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"print(refused(run_in(Path({str(tmp_path)!r}))))"
    )
    root = str(Path(__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60)
    assert "cannot be written to (File too large)" in said.stdout, said.stderr


def test_two_processes_do_not_run_in_one_folder(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    check_output(config)
    first = claim(config)
    with pytest.raises(ConfigError, match=r"name = 'run': another process is running in .*; wait for it, or set a"):
        claim(config)
    first.close()
    claim(config).close()


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    check_output(config)
    code = (
        "import os, signal; from pathlib import Path\n"
        "from tests.pipeline.test_output_check import claim, run_in\n"
        f"lock = claim(run_in(Path({str(tmp_path)!r})))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == -9
    claim(config).close()
