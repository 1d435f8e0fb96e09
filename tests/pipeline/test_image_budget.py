from __future__ import annotations

import asyncio

from rayalign.pipeline.scoring.budget import ImageBudget


def test_no_more_images_than_the_budget_in_the_order_they_came() -> None:
    held, most, order = 0, 0, []

    async def use(budget: ImageBudget, images: int) -> float:
        nonlocal held, most
        async with budget.hold(images) as waited_s:
            order.append(images)
            held += images
            most = max(most, held)
            await asyncio.sleep(0.02)
            held -= images
        return waited_s

    async def ask() -> list[float]:
        budget = ImageBudget(8)
        return await asyncio.gather(*(use(budget, images) for images in (5, 3, 4, 4, 1, 7)))

    waits = asyncio.run(ask())
    assert most == 8
    assert order == [5, 3, 4, 4, 1, 7]
    assert waits[:2] == [0.0, 0.0]
    assert all(waited_s > 0.01 for waited_s in waits[2:])


def test_a_call_larger_than_the_budget_goes_alone() -> None:
    async def ask() -> None:
        budget = ImageBudget(4)
        async with budget.hold(100) as waited_s:
            assert waited_s == 0.0
            other = asyncio.create_task(_enter(budget, 1))
            await asyncio.sleep(0.02)
            assert not other.done()
        await asyncio.wait_for(other, 5)

    asyncio.run(ask())


def test_one_that_is_cancelled_while_it_waits_holds_nothing_and_blocks_nobody() -> None:
    async def ask() -> None:
        budget = ImageBudget(4)
        async with budget.hold(3):
            large, small = (asyncio.create_task(_enter(budget, images)) for images in (4, 1))
            await asyncio.sleep(0.02)
            assert not small.done()  # behind the large one, though there is room
            large.cancel()
            await asyncio.wait_for(small, 5)
        async with budget.hold(4) as waited_s:
            assert waited_s == 0.0

    asyncio.run(ask())


async def _enter(budget: ImageBudget, images: int) -> None:
    async with budget.hold(images):
        pass
