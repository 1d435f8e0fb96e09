"""Texts encoded once in a run: what one replica's text tower made of a prompt serves all replicas of that scorer.

    replica 1 -- claim("a cat") --> TextStore: nobody has it, yours
    replica 2 -- claim("a cat") --> TextStore: waits -----------------.
    replica 1 -- put("a cat", embedding) --> TextStore --> replica 2 has it, without a run of its tower

A run's store is one small actor, which ends with the process that started it. A replica's side: shared_texts.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayalign.pipeline.scoring.names import store_beside, store_name

logger = logging.getLogger(__name__)

NAMESPACE = "rayalign"
MAX_STORED = 50_000  # texts of a scorer, some 200 MB, should a run make its prompts up as it goes
LEASE_S = 30.0  # a prompt that its replica did not bring in this time (it died) goes to the next that asks
WAIT_S = 5.0  # a call to the store waits no longer for another replica's text, but asks again
SILENCE_S = 10.0  # beyond that: a store that does not answer counts as gone
POLL_S = 0.05

Embeddings = dict[str, np.ndarray]  # prompt -> what `TextEncoder.encode_text` gives


@dataclass
class _Texts:
    """Of one scorer."""

    known: Embeddings = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)  # hashes of all prompts, also those that `known` lost for room
    leased_until: dict[str, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)  # replica -> runs of its text tower, ever


class TextStore:
    """The actor. A plain class here; `start_text_store` makes it one."""

    def __init__(self, lease_s: float = LEASE_S, wait_s: float = WAIT_S) -> None:
        self._lease_s, self._wait_s = lease_s, wait_s
        self._scorers: dict[str, _Texts] = {}
        self._changed = asyncio.Condition()

    async def claim(self, scorer: str, prompts: Sequence[str]) -> tuple[Embeddings, list[str]]:
        """(texts that are there, prompts that the caller is to encode and `put`).

        Waits, for a while, only if others are encoding every one of `prompts`; both may be empty then.
        """
        texts = self._of(scorer)
        texts.seen.update(map(hash, prompts))

        def free() -> list[str]:
            now = time.monotonic()
            return [p for p in prompts if p not in texts.known and texts.leased_until.get(p, 0.0) <= now]

        async with self._changed:
            with suppress(TimeoutError):
                something = self._changed.wait_for(lambda: free() or any(p in texts.known for p in prompts))
                await asyncio.wait_for(something, self._wait_s)
        mine = free()
        texts.leased_until.update(dict.fromkeys(mine, time.monotonic() + self._lease_s))
        return {prompt: texts.known[prompt] for prompt in prompts if prompt in texts.known}, mine

    async def put(
        self, scorer: str, replica: str, num_runs: int, embeddings: Mapping[str, np.ndarray], failed: Sequence[str] = ()
    ) -> None:
        """What a replica made of its prompts, and how often its text tower has run so far.

        `failed` it could not encode: whoever waits for one of them is to try.
        """
        texts = self._of(scorer)
        texts.runs[replica] = num_runs
        async with self._changed:
            for prompt in (*embeddings, *failed):
                texts.leased_until.pop(prompt, None)
            texts.known.update(embeddings)
            while len(texts.known) > MAX_STORED:
                del texts.known[next(iter(texts.known))]  # the oldest
            self._changed.notify_all()

    async def counts(self) -> dict[str, dict[str, int]]:
        """Scorer -> `distinct_prompts` that were asked for, and `forwards` of its text tower in all replicas."""
        return {
            scorer: {"distinct_prompts": len(texts.seen), "forwards": sum(texts.runs.values())}
            for scorer, texts in sorted(self._scorers.items())
        }

    def _of(self, scorer: str) -> _Texts:
        return self._scorers.setdefault(scorer, _Texts())


_STARTED: dict[str, Any] = {}  # run -> store; a named actor lives as long as somebody holds it


def start_text_store(run: str) -> None:
    """Starts the run's store, in the place of one that an earlier process left behind, if there is one."""
    stop_text_store(run)
    # It only hands some kB around. Beside the driver: on a node that an autoscaler added it would keep that one up.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(num_cpus=0, max_concurrency=1000, max_restarts=-1, scheduling_strategy=here)(TextStore)
    _STARTED[run] = remote.options(name=store_name(run), namespace=NAMESPACE).remote()


def stop_text_store(run: str) -> None:
    """Ends it, wherever it was started; nothing to do if there is none."""
    _STARTED.pop(run, None)
    deadline = time.monotonic() + SILENCE_S
    with suppress(ValueError):  # no actor of that name
        while time.monotonic() < deadline:  # an actor that was killed keeps its name for a moment
            ray.kill(ray.get_actor(store_name(run), NAMESPACE))
            time.sleep(POLL_S)


def has_text_store(app: str) -> bool:
    """Whether the run of this application still has one, hence a process that it belongs to."""
    with suppress(ValueError):
        return bool(ray.get_actor(store_beside(app), NAMESPACE))
    return False


def text_encodings(run: str) -> dict[str, dict[str, int]]:
    """`TextStore.counts` of the run; {} where its store is gone.

    A store that was restarted begins to count again, and so is short of what was before.
    """
    if run not in _STARTED:
        return {}
    try:
        return ray.get(_STARTED[run].counts.remote(), timeout=SILENCE_S)
    except RayError as error:  # a number for the report: no reason to lose a run that is done
        logger.warning("texts encoded were not counted: %s", error)
        return {}
