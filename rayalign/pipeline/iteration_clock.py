"""How long an iteration took by the clock, whoever began it: a killed attempt leaves no other word of its time."""

from __future__ import annotations

import time


class IterationClock:
    """Laps that leave no gap: each begins where the last one ended, which a checkpoint remembers, or with the job.

    So what is lost with a train worker counts for the iteration that is done again, and the time between a job that
    was killed and the next counts for none. `time.time()`, since job, workers and attempts may be on other machines.

    Args:
        began: when this job began.
    """

    def __init__(self, began: float) -> None:
        self._since = began

    def restore(self, ended: float) -> None:
        """`ended`: the `state` that the last iteration's checkpoint holds."""
        self._since = max(self._since, ended)

    def lap(self) -> float:
        """Seconds since the last one."""
        now = time.time()
        lap_s, self._since = max(0.0, now - self._since), now
        return lap_s

    @property
    def state(self) -> float:
        return self._since
