"""Commands that only tell: models, schema, completion; and train's own help."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from rayalign.commands.main import COMMANDS, main
from rayalign.config import RunConfig


def test_models_lists_toys_and_published_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "toy-sdxl" in said
    assert "stabilityai/stable-diffusion-xl-base-1.0" in said
    assert "2.57 B weights" in said


@pytest.mark.parametrize("settings", ["run", "style", "evaluate", "score"])
def test_a_schema_is_a_schema(settings: str, tmp_path: Path) -> None:
    assert main(["schema", "--settings", settings, "--output", str(tmp_path / "schema.json")]) == 0
    schema = json.loads((tmp_path / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)


def test_the_schema_takes_what_a_run_takes_and_refuses_what_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    check = jsonschema.Draft202012Validator(json.loads(capsys.readouterr().out))
    good = RunConfig().model_dump(mode="json")
    check.validate(good)
    for bad in ({"iterations": 0}, {"no_such_setting": 1}, {"pairs": {"kind": "none"}}):
        with pytest.raises(jsonschema.ValidationError):
            check.validate(good | bad)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert "--rollout.max_lag" in said


def test_bash_completes_by_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "bash"])
    script = tmp_path / "rayalign.bash"
    script.write_text(capsys.readouterr().out)
    ask = f"source {script}; COMP_WORDS=(rayalign train --rollout.max); COMP_CWORD=2; _rayalign; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--rollout.max_lag"]


def test_train_explains_itself_shortly_and_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    short = capsys.readouterr().out
    assert short.startswith("usage: rayalign train")
    with pytest.raises(SystemExit):
        main(["train", "--help", "--all"])
    assert "--sampler.num_steps" in capsys.readouterr().out


def test_train_refuses_as_a_job_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--iterations", "0"]) == 2
    assert "error: iterations = 0" in capsys.readouterr().err
