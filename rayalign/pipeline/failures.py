"""What the driver does once Ray Train has ended early: why, whether to start it again, and how to leave it."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayError
from ray.train.v2.api.exceptions import WorkerGroupError

from rayalign.errors import RayalignError, RunStopped
from rayalign.pipeline.board import answer
from rayalign.pipeline.watch import InThread

LEAVE_S = 30.0  # for actors to end by themselves


class Failures:
    """Counts attempts that ended without finishing an iteration. Of others a day on preemptible machines has many."""

    def __init__(self, allowed: int) -> None:
        self._allowed, self._in_row, self._done = allowed, 0, -1

    def add(self, error: BaseException | None, done: int, fatal: str | None) -> str:
        """One more attempt that ended with `done` iterations behind it; says why, if it may be tried again.

        Raises RunStopped if not: `fatal` (or an error of ours) would only come again, or this was one too many.
        """
        reason = _reason(error)
        fatal = fatal or _ours(error)
        if fatal is not None:
            raise RunStopped(fatal) from error
        # A node's notice is no failure, as long as iterations get done.
        self._in_row = self._in_row + 1 if done == self._done else int(error is not None)
        self._done = done
        if self._in_row > self._allowed:
            raise RunStopped(
                f"training failed {self._in_row} times without finishing an iteration "
                f"(max_failures = {self._allowed}): {error or reason}"
            ) from error
        return reason


def abandon(board: Any, training: InThread, message: str) -> None:
    """Ends training in a cluster that outlives this run: the gate raises, the pair stream ends, the workers fail."""
    try:
        answer(board.fail.remote(message), LEAVE_S, "the driver")
    except (RunStopped, RayError):
        return  # out of reach; what it owns ends with this process
    training.join(LEAVE_S)


def _reason(error: BaseException | None) -> str:
    """One line."""
    if error is None:
        return "the train workers left a node that is about to go"
    causes = list(error.worker_failures.items()) if isinstance(error, WorkerGroupError) else []
    who, cause = (f"train worker {causes[0][0]}", causes[0][1]) if causes else ("training", error)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"{who} failed ({type(cause).__name__}: {lines[-1].strip()[:200]})"


def _ours(error: BaseException | None) -> str | None:
    """What one of our own errors in a worker says: it would come again."""
    found = error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
    return next((str(one) for one in found if isinstance(one, RayalignError)), None)
