"""How a command ends: its exit code, and one line for whoever reads it."""

from __future__ import annotations

import pytest

from rayalign.entry import VERBOSE, exit_code
from rayalign.errors import ConfigError, Interrupted, RunStopped


def raising(error: BaseException):  # type: ignore[no-untyped-def]
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("seed", -1, "set 0 or more"), 2, "error: seed = -1: set 0 or more\n"),
        (RunStopped("a stall"), 1, "error: a stall\n"),
        (OSError(28, "No space left on device"), 1, f"error: [Errno 28] No space left on device; {VERBOSE}=1"),
        (Interrupted(15), 143, ""),
        (KeyboardInterrupt(), 130, "error: stopped\n"),
    ],
)
def test_errors_end_in_a_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VERBOSE, raising=False)
    assert exit_code(raising(error), "stopped") == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert bool(err) == bool(said)


def test_a_command_s_own_code_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(lambda: 1, "") == 1
    assert exit_code(lambda: None, "") == 0
    monkeypatch.setenv(VERBOSE, "1")
    with pytest.raises(OSError, match="gone"):
        exit_code(raising(OSError("gone")), "")
