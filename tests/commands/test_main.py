from __future__ import annotations

import importlib
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rayalign.commands import main as entry
from rayalign.errors import ConfigError, RunStopped

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "ray", "pydantic", "yaml", "huggingface_hub", "PIL")
HELPS = [[], *([name] for name in entry.COMMANDS), ["scorers", "install"], ["scorers", "check"]]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_is_instant_and_has_an_example(command: list[str]) -> None:
    code = (
        "import sys\nfrom rayalign.commands.main import main\n"
        f"try: main({[*command, '--help']!r})\n"
        f"except SystemExit as end: print('code', end.code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert said.startswith("usage: rayalign")
    assert said.strip().endswith("code 0 []")
    assert re.search(rf"^examples?:\n  {' '.join(['rayalign', *command])}\b", said, re.MULTILINE)
    # Of the processor, not of the clock: other tests may be running.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        entry.main(["--help"])
    said = capsys.readouterr().out
    for name, (_, summary) in entry.COMMANDS.items():
        assert name in said
        assert summary in said


@pytest.mark.parametrize("arguments", [[], ["scorrs"], ["--scorers"]])
def test_an_unknown_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(arguments)
    assert caught.value.code == 2
    assert "usage: rayalign" in capsys.readouterr().err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`command(act)` adds a command `act` by the one line and one module that a new one takes."""

    def add(act: Callable[[list[str]], int]) -> None:
        module = ModuleType("a_command")
        module.main = act  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "a_command", module)
        monkeypatch.setitem(entry.COMMANDS, "act", ("a_command", "does nothing"))

    return add


def test_a_command_is_one_line_and_one_file(command: Callable) -> None:
    seen: list[list[str]] = []
    command(lambda arguments: seen.append(arguments) or 3)
    assert entry.main(["act", "--model", "toy-sdxl", "--help"]) == 3
    assert seen == [["--model", "toy-sdxl", "--help"]]  # as they are: it parses for itself


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("train.lr", -1, "set it above 0"), 2, "error: train.lr = -1: set it above 0\n"),
        (RunStopped("too many failures"), 1, "error: too many failures\n"),
        (KeyboardInterrupt(), 130, "error: stopped\n"),
    ],
)
def test_errors_are_messages_and_codes(
    command: Callable, capsys: pytest.CaptureFixture, error: BaseException, code: int, said: str
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    command(fail)
    assert entry.main(["act"]) == code
    assert capsys.readouterr().err == said


def test_other_errors_keep_their_traceback(command: Callable) -> None:
    command(lambda arguments: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        entry.main(["act"])


def test_the_console_script_is_this_function() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, attribute = scripts["rayalign"].partition(":")
    assert getattr(importlib.import_module(module), attribute) is entry.main


def test_two_models_of_one_label_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert entry.main(["evaluate", "first/lora", "second/lora"]) == 2
    assert "models = 'second/lora': is labelled lora as first/lora is" in capsys.readouterr().err
