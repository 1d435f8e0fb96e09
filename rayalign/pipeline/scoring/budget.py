"""Back-pressure: how many images one client may have unanswered at one scorer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ImageBudget:
    """Lets calls through while the images of all that are through stay within `max_images`; in the order they came.

    A call of more images than that goes through alone.
    """

    def __init__(self, max_images: int) -> None:
        self._max = max_images
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, num_images: int) -> AsyncIterator[float]:
        """Room for so many images inside; gives the seconds waited for it."""
        waited_s = await self._acquire(num_images)
        try:
            yield waited_s
        finally:
            self._release(num_images)

    async def _acquire(self, num_images: int) -> float:
        if not self._waiting and self._fits(num_images):
            self._held += num_images
            return 0.0
        start = time.perf_counter()
        let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((num_images, let_in))
        try:
            await let_in
        except asyncio.CancelledError:
            if let_in.done() and not let_in.cancelled():  # let in and cancelled at once
                self._release(num_images)
            else:
                self._let_in()  # those behind it may fit
            raise
        return time.perf_counter() - start

    def _release(self, num_images: int) -> None:
        self._held -= num_images
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            num_images, let_in = self._waiting[0]
            if let_in.cancelled():
                self._waiting.popleft()
            elif self._fits(num_images):
                self._waiting.popleft()
                self._held += num_images
                let_in.set_result(None)
            else:
                return

    def _fits(self, num_images: int) -> bool:
        return self._held == 0 or self._held + num_images <= self._max
