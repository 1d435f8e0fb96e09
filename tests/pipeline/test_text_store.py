"""The store of texts without Ray: who is to encode what, and who waits. With Ray: test_reward_service.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import numpy as np

from rayalign.pipeline.scoring.text_store import TextStore

ONE, TWO = np.ones(3, dtype=np.float32), np.full(3, 2.0, dtype=np.float32)


def test_the_first_that_asks_encodes_and_the_others_wait_for_it() -> None:
    async def ask() -> None:
        store = TextStore()
        assert await store.claim("clip", ["a", "b"]) == ({}, ["a", "b"])
        assert await store.claim("clip", ["a", "c"]) == ({}, ["c"])  # its own first: nobody holds and waits
        waits = asyncio.create_task(store.claim("clip", ["a", "b"]))
        other = await store.claim("pickscore", ["a"])  # another scorer's texts are others
        assert other == ({}, ["a"])
        await asyncio.sleep(0.05)
        assert not waits.done()
        await store.put("clip", "replica 1", 2, {"a": ONE, "b": TWO})
        found, mine = await waits
        assert mine == []
        np.testing.assert_array_equal(found["a"], ONE)
        np.testing.assert_array_equal(found["b"], TWO)
        await store.put("clip", "replica 2", 1, {"c": ONE})
        assert await store.counts() == {
            "clip": {"distinct_prompts": 3, "forwards": 3},
            "pickscore": {"distinct_prompts": 1, "forwards": 0},
        }

    asyncio.run(ask())


def test_what_a_dead_replica_took_on_goes_to_the_next_that_asks() -> None:
    async def ask() -> None:
        store = TextStore(lease_s=0.2, wait_s=0.05)
        assert await store.claim("clip", ["a"]) == ({}, ["a"])
        assert await store.claim("clip", ["a"]) == ({}, [])  # waited, in vain
        start = time.monotonic()
        while not (await store.claim("clip", ["a"]))[1]:
            assert time.monotonic() < start + 5
        assert time.monotonic() - start > 0.05

    asyncio.run(ask())


def test_a_prompt_that_could_not_be_encoded_is_free_at_once() -> None:
    async def ask() -> None:
        store = TextStore()
        assert (await store.claim("clip", ["a", "b"]))[1] == ["a", "b"]
        waits = asyncio.create_task(store.claim("clip", ["b"]))
        await asyncio.sleep(0)
        await store.put("clip", "replica 1", 1, {"a": ONE}, failed=["b"])
        assert await asyncio.wait_for(waits, 5) == ({}, ["b"])

    asyncio.run(ask())


def test_without_ray_a_scorer_encodes_for_itself_and_no_cluster_is_started() -> None:
    code = (
        "import ray\nfrom rayalign.config import RewardConfig\nfrom rayalign.rewards.table import build_scorer\n"
        "from rayalign.pipeline.scoring.shared_texts import SharedTexts\n"
        "clip = build_scorer(RewardConfig(scorer='toy-clip'))\n"
        "SharedTexts('a run', 'toy-clip', clip).fetch(['a cat'])\n"
        "print(ray.is_initialized(), len(clip.missing_texts(['a cat'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
