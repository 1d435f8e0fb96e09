"""Batches of scoring calls, sized by their images.

Ray Serve's own batching counts calls, or refuses one that is larger than a batch, and closes a batch after its wait
although the one before is still being scored; under load its batches then hold one call each.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, eq=False)
class Call:
    """What a client asks for at once: B images of one size. Of two kinds, with gradients and without."""

    images_BCHW: np.ndarray  # float32, in [0, 1]
    prompts: list[str]  # B
    with_grad: bool = False

    def __len__(self) -> int:
        return len(self.images_BCHW)


class CallBatcher(Generic[AnswerT]):
    """Answers calls in batches of one kind: one batch at a time, while the next gathers.

    A batch holds whole calls, in the order they came, of up to `max_images` images together; a call that is larger
    makes a batch of its own.

    Args:
        score: a batch's answers, one for each call.
        max_images: of a batch.
        wait_s: for further calls, while a batch is not full and nothing else is being scored.
    """

    def __init__(
        self, score: Callable[[list[Call]], Awaitable[Sequence[AnswerT]]], max_images: int, wait_s: float
    ) -> None:
        self._score, self._max_images, self._wait_s = score, max_images, wait_s
        self._waiting: deque[tuple[Call, asyncio.Future[AnswerT]]] = deque()
        self._came: asyncio.Event | None = None
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, call: Call) -> AnswerT:
        """The call's answer. One that is cancelled while it waits is not scored."""
        if self._worker is None:  # here, as a constructor may run outside the event loop
            self._came = asyncio.Event()
            self._worker = asyncio.create_task(self._work(self._came))
        answer: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        self._came.set()  # type: ignore[union-attr]
        return await answer

    @property
    def num_waiting(self) -> int:
        """Images of calls that are in no batch yet."""
        return sum(len(call) for call, answer in self._waiting if not answer.done())

    async def _work(self, came: asyncio.Event) -> None:
        while True:
            if not self._waiting:
                came.clear()
                await came.wait()
            await self._fill(came)
            batch = self._take()
            if not batch:  # all were cancelled
                continue
            try:
                answers = await self._score([call for call, _ in batch])
                for (_, waiting), answer in zip(batch, answers, strict=True):
                    if not waiting.done():
                        waiting.set_result(answer)
            except Exception as error:  # goes to whoever asked; the worker must outlive it
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)

    async def _fill(self, came: asyncio.Event) -> None:
        deadline = time.monotonic() + self._wait_s
        while self.num_waiting < self._max_images and (left := deadline - time.monotonic()) > 0:
            came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(came.wait(), left)

    def _take(self) -> list[tuple[Call, asyncio.Future[AnswerT]]]:
        """The next batch, out of `_waiting`: the first call and those of its kind behind it, until one is too large."""
        alive = deque(item for item in self._waiting if not item[1].done())
        batch: list[tuple[Call, asyncio.Future[AnswerT]]] = []
        rest: deque[tuple[Call, asyncio.Future[AnswerT]]] = deque()
        room = self._max_images
        while alive:
            call, answer = alive.popleft()
            if batch and call.with_grad != batch[0][0].with_grad:
                rest.append((call, answer))
            elif batch and len(call) > room:
                rest.append((call, answer))
                break
            else:
                batch.append((call, answer))
                room -= len(call)
        self._waiting = rest + alive
        return batch
