"""The PolicyBoard: which policy versions exist, where their weights are, and what happened. One small async actor.

It holds references to weights, never the weights. A plain class here; `start_board` makes it an actor, which Ray starts
again if it dies. It then knows nothing; train worker 0 tells it everything anew (publisher.py), and calls that were on
their way are repeated, so each of them may come twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayalign.errors import RunStopped
from rayalign.records import IterationRecord, PublishedWeights

RECORDS_KEPT = 100  # the driver reads them within a second or so


@dataclass
class BoardStatus:
    """What the driver's progress display and stall report read."""

    life: str = ""  # another one after each restart
    version: int = -1
    waiting: dict[str, int] = field(default_factory=dict)  # who waits -> for which policy version
    doing: dict[str, tuple[str, float]] = field(default_factory=dict)  # who -> (what it does or awaits, seconds since)
    tickets_done: int = 0
    starts: int = 0  # of train workers, in this life
    fatal: str | None = None


class PolicyBoard:
    """Versions are published by train worker 0, awaited by the gate, pulled by rollout actors."""

    def __init__(self, keep_versions: int) -> None:
        self._keep = keep_versions
        self._weights: dict[int, tuple[list[Any], PublishedWeights]] = {}
        self._changed = asyncio.Condition()
        self._records: dict[int, IterationRecord] = {}
        self._doing: dict[str, tuple[str, float]] = {}
        self._status = BoardStatus(life=uuid.uuid4().hex)
        self._notes: dict[str, bool] = {}  # text -> was taken

    async def begin(self, start_iteration: int) -> None:
        """A worker group starts (anew): what an earlier one published died with it, so versions begin again."""
        async with self._changed:
            self._weights.clear()
            self._doing.clear()
            self._status.version = -1
            self._status.starts += 1
            self._records = {number: r for number, r in self._records.items() if number < start_iteration}

    async def life(self) -> str:
        """The same as long as nothing told to the board is forgotten."""
        return self._status.life

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
        await self.doing(who, f"waits for policy version {version}")
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: version in self._weights or self._status.fatal is not None)
        finally:
            self._status.waiting.pop(who, None)
            self._doing.pop(who, None)
        if self._status.fatal is not None:
            raise RuntimeError(self._status.fatal)

    async def weights(self, version: int) -> tuple[list[Any], PublishedWeights] | None:
        """Reference and description of one version; None if it is not (or no longer) held."""
        return self._weights.get(version)

    async def record(self, record: IterationRecord) -> None:
        """Once more for the same iteration replaces the first."""
        async with self._changed:
            self._records[record.iteration] = record
            for old in sorted(self._records)[:-RECORDS_KEPT]:
                del self._records[old]
            self._changed.notify_all()

    async def records(self, after_iteration: int, timeout_s: float) -> list[IterationRecord]:
        """Records of iterations beyond `after_iteration`; waits up to `timeout_s` for one."""

        def newer() -> list[IterationRecord]:
            return [self._records[number] for number in sorted(self._records) if number > after_iteration]

        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(newer), timeout_s)
        return newer()

    async def ticket_done(self, number: int) -> None:
        self._status.tickets_done += 1
        self._doing.pop(f"ticket {number}", None)

    async def doing(self, who: str, what: str) -> None:
        """What a stall report says of `who`, until it says something else."""
        self._doing[who] = (what, time.monotonic())

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
        now = time.monotonic()
        doing = {who: (what, now - since) for who, (what, since) in self._doing.items()}
        return replace(self._status, doing=doing)


def start_board(max_lag: int) -> Any:
    """The board as an actor beside the driver, without whose node there is no run anyway. It only moves references."""
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(
        num_cpus=0, max_concurrency=1000, max_restarts=-1, max_task_retries=-1, scheduling_strategy=beside
    )(PolicyBoard)
    # Held versions: those that tickets still to be drawn may ask for, and the one being trained.
    return remote.remote(keep_versions=max_lag + 2)


def answer(reference: Any, timeout_s: float, asked: str) -> Any:
    """What the board answered to a call. Raises RunStopped, naming what was `asked`, if none came in `timeout_s`."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError:
        raise RunStopped(
            f"the PolicyBoard did not answer {asked} for {timeout_s:g} s (stall_timeout_s); its node or the network "
            "to it is gone"
        ) from None
