"""The board by itself, as the plain class that it is."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from rayalign.pipeline.board import PolicyBoard
from rayalign.pipeline.rollout import VersionTurns
from rayalign.records import Canary, IterationRecord, PublishedWeights


def published(version: int) -> PublishedWeights:
    return PublishedWeights(version, "", Canary(1.0, np.zeros(1), np.zeros(1)), 0)


def record(iteration: int) -> IterationRecord:
    return IterationRecord(iteration, iteration + 1, {}, {}, {}, 0)


def test_waiting_ends_when_the_version_comes() -> None:
    async def scene() -> list[str]:
        board, seen = PolicyBoard(2), []

        async def wait() -> None:
            await board.wait_for(1, "ticket 4")
            seen.append("passed")

        waiting = asyncio.create_task(wait())
        await board.publish(["w0"], published(0))
        await asyncio.sleep(0)
        assert (await board.status()).doing["ticket 4"][0] == "waits for policy version 1"
        await board.publish(["w1"], published(1))
        await waiting
        assert (await board.status()).doing == {}
        return seen

    assert asyncio.run(scene()) == ["passed"]


def test_only_the_newest_versions_are_kept() -> None:
    async def scene() -> list[bool]:
        board = PolicyBoard(2)
        for version in range(4):
            await board.publish([f"w{version}"], published(version))
        return [await board.weights(version) is not None for version in range(4)]

    assert asyncio.run(scene()) == [False, False, True, True]


def test_a_failure_wakes_those_who_wait_and_the_first_message_stays() -> None:
    async def scene() -> str | None:
        board = PolicyBoard(2)
        waiting = asyncio.create_task(board.wait_for(3, "ticket 9"))
        await asyncio.sleep(0)
        await board.fail("checksum")
        await board.fail("later")
        with pytest.raises(RuntimeError, match="checksum"):
            await waiting
        return (await board.status()).fatal

    assert asyncio.run(scene()) == "checksum"


def test_beginning_again_forgets_what_died_with_the_workers() -> None:
    async def scene() -> tuple[Any, list[int], int]:
        board = PolicyBoard(2)
        await board.begin(0)
        await board.publish(["w0"], published(0))
        for iteration in range(3):
            await board.record(record(iteration))
        await board.begin(2)
        left = [r.iteration for r in await board.records(-1, 0.01)]
        return await board.weights(0), left, (await board.status()).starts

    assert asyncio.run(scene()) == (None, [0, 1], 2)


def test_a_note_is_taken_once_however_many_say_it() -> None:
    async def scene() -> tuple[list[str], list[str]]:
        board = PolicyBoard(2)
        for _ in range(3):
            await board.note("no score")
        return await board.take_notes(), await board.take_notes()

    assert asyncio.run(scene()) == (["no score"], [])


def test_tickets_of_another_version_wait_until_the_actor_is_free_of_the_present_one() -> None:
    """Two tickets of version 0 share the model; the one of version 1 gets it when both are done."""

    async def scene() -> list[str]:
        log: list[str] = []

        async def use(version: int) -> None:
            log.append(f"use {version}")

        turns = VersionTurns(use)

        async def ticket(name: str, version: int, rounds: int) -> None:
            async with turns.hold(version):
                for _ in range(rounds):
                    await asyncio.sleep(0.01)
                log.append(name)

        await asyncio.gather(ticket("a", 0, 3), ticket("b", 0, 1), ticket("c", 1, 1))
        return log

    assert asyncio.run(scene()) == ["use 0", "b", "a", "use 1", "c"]
