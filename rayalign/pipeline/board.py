"""The PolicyBoard: which policy versions exist, where their weights are, and what happened. One small async actor.

It holds references to weights, never the weights. A plain class here; `start_board` makes it an actor.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from rayalign.records import IterationRecord, PublishedWeights


@dataclass
class BoardStatus:
    """What the driver's progress display and stall report read."""

    version: int = -1
    waiting: dict[str, int] = field(default_factory=dict)  # who waits -> for which version
    tickets_done: int = 0
    fatal: str | None = None


class PolicyBoard:
    """Versions are published by train worker 0, awaited by the gate, pulled by rollout actors."""

    def __init__(self, keep_versions: int) -> None:
        self._keep = keep_versions
        self._weights: dict[int, tuple[list[Any], PublishedWeights]] = {}
        self._changed = asyncio.Condition()
        self._records: list[IterationRecord] = []
        self._start = 0
        self._starts = 0
        self._status = BoardStatus()
        self._notes: dict[str, bool] = {}  # text -> was taken

    async def begin(self, start_iteration: int) -> None:
        """A worker group starts (anew): what an earlier one published died with it, so versions begin again."""
        async with self._changed:
            self._weights.clear()
            self._start, self._status.version = start_iteration, -1
            self._starts += 1
            self._records = [record for record in self._records if record.iteration < start_iteration]

    async def start_iteration(self) -> int:
        return self._start

    async def publish(self, boxed: list[Any], published: PublishedWeights) -> None:
        """`boxed` is a one-element list with the object reference; boxed, since Ray would otherwise resolve it."""
        async with self._changed:
            self._weights[published.version] = (boxed, published)
            for old in sorted(self._weights)[: -self._keep]:
                del self._weights[old]
            self._status.version = max(self._weights)
            self._changed.notify_all()

    async def wait_for(self, version: int, who: str) -> None:
        """Returns once `version` is there. Raises RuntimeError if the run has failed meanwhile."""
        self._status.waiting[who] = version
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._status.version >= version or self._status.fatal is not None)
        finally:
            self._status.waiting.pop(who, None)
        if self._status.fatal is not None:
            raise RuntimeError(self._status.fatal)

    async def weights(self, version: int) -> tuple[list[Any], PublishedWeights] | None:
        """Reference and description of one version; None if it is not (or no longer) held."""
        return self._weights.get(version)

    async def record(self, record: IterationRecord) -> None:
        """Once an iteration: a worker that restarts says what the one before it may have died without saying."""
        async with self._changed:
            self._records = [other for other in self._records if other.iteration != record.iteration]
            self._records.append(record)
            self._changed.notify_all()

    async def records(self, after_iteration: int, timeout_s: float) -> list[IterationRecord]:
        """Records of iterations beyond `after_iteration`; waits up to `timeout_s` for one."""

        def newer() -> list[IterationRecord]:
            return [record for record in self._records if record.iteration > after_iteration]

        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(newer), timeout_s)
        return newer()

    async def ticket_done(self, number: int) -> None:
        self._status.tickets_done += 1

    async def note(self, text: str) -> None:
        """Something a person should read once, whichever and however many actors say it."""
        self._notes.setdefault(text, False)

    async def take_notes(self) -> list[str]:
        """Notes not taken yet."""
        fresh = [text for text, taken in self._notes.items() if not taken]
        self._notes.update(dict.fromkeys(fresh, True))
        return fresh

    async def fail(self, message: str) -> None:
        """Stops the run: a fault that a restart would only meet again. The first message is the one reported."""
        async with self._changed:
            self._status.fatal = self._status.fatal or message
            self._changed.notify_all()

    async def status(self) -> BoardStatus:
        return self._status

    async def restarts(self) -> int:
        """How often the train workers started again."""
        return max(0, self._starts - 1)


def start_board(max_lag: int) -> Any:
    """The board as an actor. Its CPU share is nominal: it only moves references."""
    remote = ray.remote(num_cpus=0.01, max_concurrency=1000)(PolicyBoard)
    # Held versions: those that tickets still to be drawn may ask for, and the one being trained.
    return remote.remote(keep_versions=max_lag + 2)
