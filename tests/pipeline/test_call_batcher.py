from __future__ import annotations

import asyncio

import numpy as np
import pytest

from rayalign.pipeline.scoring.batcher import Call, CallBatcher


def call(images: int, with_grad: bool = False) -> Call:
    return Call(np.zeros((images, 3, 2, 2), dtype=np.float32), [""] * images, with_grad)


class Scoring:
    """Answers a call with its number of images, one batch after the other, each when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.running = 0

    async def __call__(self, calls: list[Call]) -> list[int]:
        self.running += 1
        assert self.running == 1
        assert len({call.with_grad for call in calls}) == 1
        self.batches.append([len(call) for call in calls])
        await self.go.wait()
        self.running -= 1
        return [len(call) for call in calls]


async def batches_of(sizes: list[tuple[int, bool]], max_images: int) -> list[list[int]]:
    """The batches of calls (images, with_grad) that come while another call is being scored."""
    scoring = Scoring()
    batcher = CallBatcher(scoring, max_images, wait_s=0.0)
    first = asyncio.create_task(batcher.ask(call(1)))
    await asyncio.sleep(0.05)
    rest = [asyncio.create_task(batcher.ask(call(*size))) for size in sizes]
    await asyncio.sleep(0.05)
    assert scoring.batches == [[1]]
    assert batcher.num_waiting == sum(images for images, _ in sizes)
    scoring.go.set()
    assert await asyncio.gather(first, *rest) == [1, *(images for images, _ in sizes)]
    assert batcher.num_waiting == 0
    return scoring.batches[1:]


def test_calls_gather_while_one_batch_is_scored_and_images_count() -> None:
    sizes = [(3, False), (4, False), (1, False), (2, False), (8, False), (20, False), (1, False)]
    # 3 + 4 + 1 = 8; 2, as 8 more would be 10; 8; 20 is never split and comes alone; 1.
    assert asyncio.run(batches_of(sizes, 8)) == [[3, 4, 1], [2], [8], [20], [1]]


def test_kinds_are_not_mixed_and_keep_their_order() -> None:
    sizes = [(1, False), (2, True), (3, False), (4, True)]
    assert asyncio.run(batches_of(sizes, 100)) == [[1, 3], [2, 4]]


def test_a_batch_that_is_not_full_waits_for_more() -> None:
    async def ask() -> list[list[int]]:
        scoring = Scoring()
        scoring.go.set()
        batcher = CallBatcher(scoring, 4, wait_s=5.0)
        start = asyncio.get_running_loop().time()
        calls = [asyncio.create_task(batcher.ask(call(1)))]
        for _ in range(3):
            await asyncio.sleep(0.02)
            calls.append(asyncio.create_task(batcher.ask(call(1))))
        await asyncio.gather(*calls)
        assert asyncio.get_running_loop().time() - start < 4  # full: no need to wait it out
        return scoring.batches

    assert asyncio.run(ask()) == [[1, 1, 1, 1]]


def test_a_cancelled_call_is_not_scored_and_an_error_ends_no_other_batch() -> None:
    async def fails(calls: list[Call]) -> list[int]:
        if len(calls[0]) == 2:
            raise RuntimeError("two")
        return [len(call) for call in calls]

    async def ask() -> None:
        batcher = CallBatcher(fails, 1, wait_s=0.05)
        gone = asyncio.create_task(batcher.ask(call(5)))
        await asyncio.sleep(0)
        gone.cancel()
        two, one = batcher.ask(call(2)), batcher.ask(call(1))
        answers = await asyncio.gather(two, one, return_exceptions=True)
        assert isinstance(answers[0], RuntimeError)
        assert answers[1] == 1
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(ask())
