"""The one object that speaks to a person while a run goes. It also writes all it says, with the time, into a log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rayalign.progress.lines import iteration_line, learned_line
from rayalign.progress.pace import Pace
from rayalign.records import IterationRecord

if TYPE_CHECKING:
    from rayalign.progress.live import Live


class Progress:
    """Sentences and iterations as lines; in a terminal, below them, a display of what goes on now.

    Args:
        iterations: of the whole run; `done` of them before this start.
        log: a file that every line is added to, with the time.
        start_reward: of the run's first iteration, which changes count from; null where it is still to come.
    """

    def __init__(
        self, iterations: int, done: int = 0, log: Path | None = None, start_reward: float | None = None
    ) -> None:
        self._iterations, self._done = iterations, done
        self._pace = Pace(iterations)
        self._start_reward = start_reward
        self._live = _live(iterations, done) if sys.stdout.isatty() else None
        self._log: TextIO | None = log.open("a", encoding="utf-8") if log else None

    def stage(self, text: str) -> None:
        """A sentence about what happens now."""
        self._say(text)
        if self._live is not None:
            self._live.stage(text)

    def drawing(self, tickets_done: int, tickets_per_iteration: int, waiting: dict[str, int]) -> None:
        """A passing state, which only a terminal shows: tickets drawn since the start, and who waits for what."""
        if self._live is not None:
            earlier = (self._done - self._live.first) * tickets_per_iteration
            self._live.drawing(tickets_done - earlier, tickets_per_iteration, waiting)

    def iteration(self, record: IterationRecord) -> None:
        """One iteration has ended."""
        self._done = record.number
        reward = record.metrics["reward"]
        self._start_reward = reward if self._start_reward is None else self._start_reward
        rate, left = self._pace.iteration(self._done, record.counts["pairs_kept"])
        brief = learned_line(record, self._iterations, self._start_reward)
        self._say(iteration_line(record, self._iterations, self._start_reward, rate, left), brief)
        if self._live is not None:
            self._live.iteration(record, self._start_reward, rate, left)

    def close(self) -> None:
        """Takes the display away; the lines stay. What is said after is still printed."""
        if self._live is not None:
            self._live.close()
            self._live = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def note(self, text: str) -> None:
        """For the log alone."""
        if self._log is not None:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._log.flush()

    def _say(self, text: str, brief: str | None = None) -> None:
        """To the log and to the screen; `brief` in its place above a live display, which says the rest."""
        self.note(text)
        if self._live is not None:
            self._live.line(text if brief is None else brief)
        else:
            print(text, flush=True)


def _live(iterations: int, done: int) -> Live:
    from rayalign.progress.live import Live  # a log needs no terminal library

    return Live(iterations, done)
