"""The pair stream by hand: a test plays the trainer, without Ray Train."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import ray

from rayalign.config import RunConfig
from rayalign.models.load import load_model
from rayalign.models.publish import publishable
from rayalign.pipeline.board import start_board
from rayalign.pipeline.pair_stream import pair_dataset
from rayalign.pipeline.scoring.service import start_reward_services, stop_reward_services
from rayalign.records import Ticket

TIMES = ("ticket_rollout_s", "ticket_scoring_s", "ticket_queued_s")


@contextmanager
def scoring(config: RunConfig) -> Iterator[None]:
    placement = config.placement
    start_reward_services(config.key, config.rewards, placement.scorer, config.service, placement.cpu_threads)
    try:
        yield
    finally:
        stop_reward_services(config.key)


def policy_arrays(config: RunConfig, version: int) -> dict[str, Any]:
    """LoRA weights of a made-up version: each B filled with a number of its own."""
    arrays = load_model(config, "cpu").weights.state("policy")
    if version == 0:
        return arrays
    return {name: value + 0.01 * version if name.endswith("lora_B") else value for name, value in arrays.items()}


class Hand:
    """Plays train worker 0: publishes versions, takes tickets."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.board = start_board(config.rollout.max_lag)
        self.kept: list[Any] = []
        ray.get(self.board.begin.remote(0))

    def publish(self, version: int, arrays: dict[str, Any] | None = None, tamper: Any = None) -> None:
        """`tamper` changes the arrays after they were described: damage on the way."""
        arrays = policy_arrays(self.config, version) if arrays is None else arrays
        model = load_model(self.config, "cpu")
        model.weights.load("policy", arrays)
        published = publishable(model, version, arrays)
        self.kept.append(ray.put(tamper(arrays) if tamper else arrays))
        ray.get(self.board.publish.remote([self.kept[-1]], published))

    def run(self, on_ticket: Callable[[pa.Table], None] | None = None) -> list[pa.Table]:
        """Every ticket of the run in the order it came; publishes version k + 1 after iteration k's last ticket."""
        self.publish(0)
        tables: list[pa.Table] = []
        stream = pair_dataset(self.config, self.board, 0)
        for table in stream.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
            tables.append(table)
            if on_ticket:
                on_ticket(table)
            ticket = Ticket(len(tables) - 1, self.config.rollout.tickets_per_iteration)
            last = ticket.slot == ticket.tickets_per_iteration - 1
            if last and ticket.iteration + 1 < self.config.iterations:
                self.publish(ticket.iteration + 1)
        return tables


def ids(tables: list[pa.Table]) -> list[tuple[int, int]]:
    return [(table["iteration"][0].as_py(), table["slot"][0].as_py()) for table in tables]


def bits(tables: list[pa.Table]) -> pa.Table:
    """Everything but the clock."""
    return pa.concat_tables(tables).drop(list(TIMES)).combine_chunks()


def kill_actor(title: str, wait_s: float = 30.0) -> int:
    """SIGKILLs the newest worker process of this session's raylet whose title holds `title`; returns its process id."""
    raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(raylet)], capture_output=True, text=True)
        found = [int(line.split()[0]) for line in listing.stdout.splitlines() if title in line]
        if found:
            os.kill(max(found), signal.SIGKILL)
            return max(found)
        time.sleep(0.05)
    raise AssertionError(f"no worker called {title!r} among:\n{listing.stdout}")
