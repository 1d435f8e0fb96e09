"""What the driver watches training with: a thread that keeps its error, and an eye on whether anything gets done."""

from __future__ import annotations

import time
from concurrent.futures import wait
from typing import Any

from rayalign.errors import RunStopped
from rayalign.pipeline.board import BoardStatus, answer
from rayalign.pipeline.deadline import in_thread

SHOWN = 6  # of those who wait, in a stall report


class InThread:
    """A call in a thread of its own; keeps its error."""

    def __init__(self, call: Any) -> None:
        self._answer, self._ended = in_thread(call), False

    @property
    def error(self) -> BaseException | None:
        """What it raised, for the driver's thread to raise; null while it runs."""
        return self._answer.exception() if self._answer.done() else None

    def join(self, timeout_s: float) -> None:
        wait([self._answer], timeout_s)

    def running(self) -> bool:
        return not self._answer.done()

    def seen_end(self) -> bool:
        """False once, at the first look after the end: records may have come in between."""
        seen, self._ended = self._ended, True
        return seen


class Watch:
    """Notices when nothing gets done any more."""

    def __init__(self, board: Any, timeout_s: float) -> None:
        self._board, self._timeout_s = board, timeout_s
        self._seen: tuple[int, int] = (-1, -1)
        self._starts: dict[str, int] = {}  # of train workers, by life of the board
        self._since = time.monotonic()

    def look(self, last_iteration: int) -> BoardStatus:
        """What goes on. Raises RunStopped, saying who waits for whom, after `timeout_s` without progress."""
        status = self.status()
        now = (last_iteration, status.tickets_done)
        if now != self._seen:
            self._seen, self._since = now, time.monotonic()
        idle = time.monotonic() - self._since
        if idle > self._timeout_s:
            raise RunStopped(
                f"nothing was done for {idle:.0f} s (stall_timeout_s); newest policy version is {status.version}, "
                f"tickets done {status.tickets_done}; {who_waits(status)}"
            )
        return status

    def status(self) -> BoardStatus:
        status = answer(self._board.status.remote(), self._timeout_s, "the driver")
        self._starts[status.life] = status.starts
        return status

    @property
    def restarts(self) -> int:
        """How often train workers started again."""
        return max(0, sum(self._starts.values()) - 1)


def who_waits(status: BoardStatus) -> str:
    """Who does or awaits what, the longest first."""
    if status.version < 0:
        return "no train worker has published the policy: none has started, or all wait for one another"
    longest = sorted(status.doing.items(), key=lambda item: -item[1][1])[:SHOWN]
    said = "; ".join(f"{who} {what} since {seconds:.0f} s" for who, (what, seconds) in longest)
    return said or "nobody does anything, so a rollout actor has no room or does not start"
