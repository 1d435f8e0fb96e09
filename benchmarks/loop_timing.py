"""One loop of the pipeline on stub models, without pictures or report, and when each of its iterations ended."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import ray

from rayalign.config import RewardConfig, RunConfig
from rayalign.pipeline.board import start_board
from rayalign.pipeline.cluster import check_placement, connect
from rayalign.pipeline.scoring.service import start_reward_services, stop_reward_services
from rayalign.pipeline.training import make_trainer
from rayalign.pipeline.watch import InThread
from rayalign.records import IterationRecord

POLL_S = 1.0
ACTOR_CPUS = 0.1  # stubs sleep: many fit on two cores


@dataclass(frozen=True)
class StubLoad:
    """Known costs. One denoiser call on a ticket's batch takes `denoise_s`; a training forward `train_s`."""

    actors: int = 1
    tickets_per_actor: int = 2
    denoise_s: float = 0.04
    train_s: float = 0.02
    micro_batch: int = 20  # pairs
    samples_per_ticket: int = 4
    tickets_in_flight: int = 2
    max_lag: int = 0
    iterations: int = 6

    def config(self, output: str = "runs") -> RunConfig:
        share = {"cpus": ACTOR_CPUS}
        return RunConfig.model_validate(
            {
                "output": output,
                "iterations": self.iterations,
                "model": {"path": f"stub:denoise_s={self.denoise_s},train_s={self.train_s}"},
                "rewards": [RewardConfig(scorer="stub")],
                "rollout": {
                    "samples_per_ticket": self.samples_per_ticket,
                    "tickets_per_iteration": self.actors * self.tickets_per_actor,
                    "tickets_in_flight": self.tickets_in_flight,
                    "max_lag": self.max_lag,
                },
                "train": {"micro_batch": self.micro_batch},
                "placement": {
                    "rollout": {"min": self.actors, "max": self.actors} | share,
                    "scorer": share,
                    "train": share,
                },
            }
        )

    @property
    def ticket_rollout_s(self) -> float:
        config = self.config()
        return config.pairs.calls_per_trajectory(config.sampler.num_steps) * self.denoise_s

    @property
    def ticket_training_s(self) -> float:
        forwards = -(-self.config().pairs_per_ticket // self.micro_batch)
        return forwards * (self.denoise_s + self.train_s)

    @property
    def training_s(self) -> float:
        """Of an iteration."""
        return self.actors * self.tickets_per_actor * self.ticket_training_s

    def ideal_s(self) -> float:
        """Seconds of an iteration if nothing but models took time; see overhead.py for the formula."""
        rollout_s = self.tickets_per_actor * self.ticket_rollout_s
        if self.max_lag:
            return max(rollout_s, self.training_s)
        ended = 0.0
        for ticket in range(self.actors * self.tickets_per_actor):
            drawn = (ticket // self.actors + 1) * self.ticket_rollout_s
            ended = max(ended, drawn) + self.ticket_training_s
        return ended

    def with_lag(self, max_lag: int) -> StubLoad:
        return replace(self, max_lag=max_lag)


@dataclass(frozen=True)
class TimedIteration:
    record: IterationRecord
    wall_s: float  # since the iteration before ended, weights published included


@contextmanager
def stub_cluster() -> Iterator[None]:
    """Ray, which stays up for all loops measured inside."""
    embedded = connect()
    try:
        yield
    finally:
        if embedded:
            ray.shutdown()


def timed_loop(load: StubLoad) -> list[TimedIteration]:
    """All iterations but the first, whose time is the start of the actors. Inside `stub_cluster`."""
    with tempfile.TemporaryDirectory(prefix="rayalign-bench-") as folder:
        config = load.config(folder)
        check_placement(config)
        config.folder.mkdir(parents=True)
        placement = config.placement
        start_reward_services(config.key, config.rewards, placement.scorer, config.service, placement.cpu_threads)
        try:
            seen = _seen(config)
        finally:
            stop_reward_services(config.key)
    pairs = itertools.pairwise(seen)
    return [TimedIteration(record, at - before) for (_, before), (record, at) in pairs]


def _seen(config: RunConfig) -> list[tuple[IterationRecord, float]]:
    """Each iteration's record, and when it came."""
    board = start_board(config.rollout.max_lag)
    training = InThread(lambda: make_trainer(config, board).fit())
    seen: list[tuple[IterationRecord, float]] = []
    while training.running() or not training.seen_end():
        for record in ray.get(board.records.remote(len(seen) - 1, POLL_S)):
            seen.append((record, time.perf_counter()))
    ray.kill(board)
    if training.error is not None:
        raise training.error
    return seen
