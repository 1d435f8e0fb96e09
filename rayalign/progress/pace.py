"""How fast a run goes, and how long it will take."""

from __future__ import annotations

import time


class Pace:
    """Seconds an iteration and pairs a second, from the moments at which iterations ended."""

    def __init__(self, iterations: int, done: int) -> None:
        self._iterations, self._first = iterations, done
        self._started = self._last = time.monotonic()
        self._second: tuple[float, int] | None = None  # when the second iteration began, and how many were done then

    def iteration(self, done: int, pairs: int) -> tuple[float, float]:
        """An iteration of `pairs` kept has ended, `done` in all; (pairs/s in it, seconds left)."""
        now = time.monotonic()
        rate = pairs / max(now - self._last, 1e-9)
        self._last = now
        return rate, self._seconds_each(now, done) * (self._iterations - done)

    def _seconds_each(self, now: float, done: int) -> float:
        """Without the first where there are others: actors start and load models in it."""
        if self._second is None:
            self._second = (now, done)
            return (now - self._started) / (done - self._first)
        since, counted = self._second
        return (now - since) / max(done - counted, 1)
