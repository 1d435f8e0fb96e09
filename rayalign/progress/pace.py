"""How fast a run goes, and how long it will take."""

from __future__ import annotations

import math
import time


class Pace:
    """Seconds an iteration and pairs a second, from the moments at which iterations ended."""

    def __init__(self, iterations: int) -> None:
        self._iterations = iterations
        self._last = time.monotonic()
        self._second: tuple[float, int] | None = None  # when the second iteration began, and how many were done then

    def iteration(self, done: int, pairs: int) -> tuple[float, float]:
        """An iteration of `pairs` kept has ended, `done` in all; (pairs/s in it, seconds left).

        After the first of several nobody knows how long they take: NaN.
        """
        now = time.monotonic()
        rate = pairs / max(now - self._last, 1e-9)
        self._last = now
        each = self._seconds_each(now, done)
        return rate, each * (self._iterations - done) if done < self._iterations else 0.0

    def _seconds_each(self, now: float, done: int) -> float:
        """Without the first, in which actors start and load models."""
        if self._second is None:
            self._second = (now, done)
            return math.nan
        since, counted = self._second
        return (now - since) / max(done - counted, 1)
