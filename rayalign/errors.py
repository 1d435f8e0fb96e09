"""Errors a user can act on. Each says which field holds which value and what to set instead."""

from __future__ import annotations

from rayalign.redaction import redacted

ALL_SETTINGS = "settings"  # the field of what several settings together make wrong; `fix` names them
UNKNOWN = "no such setting"  # how the `fix` of an unknown name begins
MAX_SHOWN = 400  # characters of a value in a message


class RayalignError(Exception):
    """Base of every error that `rayalign` raises on purpose; jobs print it without a traceback."""


class ConfigError(RayalignError):
    """A setting is wrong. `field` is its dotted name, `value` what was given, `fix` what to set."""

    def __init__(self, field: str, value: object, fix: str) -> None:
        self.field, self.value, self.fix = field, value, fix
        super().__init__(redacted(self._text()))

    def _text(self) -> str:
        """Without what says nothing: the value of a name that no setting has, and all the settings at once."""
        if self.field == ALL_SETTINGS:
            return self.fix
        if self.fix.startswith(UNKNOWN):
            return f"{_cut(self.field)}: {self.fix}"
        return f"{_cut(self.field)} = {_cut(repr(self.value))}: {self.fix}"

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        """So that it arrives whole from an actor: the default would call it with the message alone."""
        return type(self), (self.field, self.value, self.fix)


def _cut(text: str) -> str:
    """A file given as a value, say, must not push what is to be set off the screen."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]} ... {text[-MAX_SHOWN // 4 :]}"


class WeightsError(RayalignError):
    """Published weights do not match what arrived (checksum), where they go (names) or what they do (canary)."""


class ScoringError(RayalignError):
    """A scorer could not answer. Never turned into a number: the pair is dropped and counted."""


class CheckpointError(RayalignError):
    """A checkpoint is missing, damaged or of another run."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C. No `Exception`, so that nothing that retries or drops faults takes it for one.

    `exit_code` is the shell's: 128 + the signal's number.
    """

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"signal {signal_number}")


class RunStopped(RayalignError):
    """The run stopped itself: too many failures, a fatal error in an actor, or a stall."""
