"""One line of the doctor's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """A problem stops runs, a warning some of them; both say what to do."""

    name: str
    status: Status
    text: str
    fix: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, "ok", text)


def warning(name: str, text: str, fix: str) -> Finding:
    return Finding(name, "warning", text, fix)


def problem(name: str, text: str, fix: str) -> Finding:
    return Finding(name, "problem", text, fix)


def run_check(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Its findings. A check that breaks must not hide what the others found."""
    try:
        return list(check())
    except Exception as error:
        text = f"could not be looked at ({type(error).__name__}: {error})"
        return [warning(name, text, "see whether the lines above explain it")]
