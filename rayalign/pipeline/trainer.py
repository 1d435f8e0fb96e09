"""The train worker's loop: take an iteration's tickets from the pair stream, learn, save, publish, report.

consumes   the worker's share of the pair stream, ticket by ticket
produces   a checkpoint and the next policy version (worker 0), one IterationRecord an iteration
waits for  the rollout pool (next ticket), the other workers (gradient exchange)
unblocks   the gate, by publishing
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.train
import torch

from rayalign.config import RunConfig
from rayalign.errors import RayalignError, RunStopped
from rayalign.evaluation.history import history_line, parse_history
from rayalign.evaluation.wrong import rolled_back_to
from rayalign.learning.checkpoint import REFERENCE, Arrays, Checkpoint
from rayalign.learning.guards import Alarm, Limits, told
from rayalign.learning.iteration_stats import IterationStats
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.learning.manifest import Part
from rayalign.learning.optimizer import optimizer_arrays, restore_optimizer
from rayalign.models.load import load_model
from rayalign.models.publish import publishable
from rayalign.pipeline.board import RECORDS_KEPT, answer
from rayalign.pipeline.collapse_guard import CollapseGuard
from rayalign.pipeline.devices import node_leaves, peak_memory, prepare_actor
from rayalign.pipeline.iteration_clock import IterationClock
from rayalign.pipeline.probe import Probe
from rayalign.pipeline.publisher import Publisher
from rayalign.pipeline.resume import store_of
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.pipeline.shares import check_shares
from rayalign.records import HeldOut, IterationRecord
from rayalign.rewards.statistics import ByScorer, from_plain, merge_by_scorer, standard_metrics, standards, to_plain


def train_loop(setup: dict[str, Any]) -> None:
    """Runs on every Ray Train worker.

    `setup`: {"config": RunConfig, "board": actor handle, "scores": ByScorer, "began": time.time() of the job's start}.
    """
    config, board = setup["config"], setup["board"]
    worker = TrainWorker(config, board, setup["scores"], setup["began"])
    try:
        worker.run()
    except RayalignError as error:
        answer(board.fail.remote(str(error)), config.stall_timeout_s, "a train worker")
        raise


class TrainWorker:
    """One of W equal workers; worker 0 also saves and publishes."""

    def __init__(self, config: RunConfig, board: Any, scores: ByScorer, began: float) -> None:
        self.config, self.board = config, board
        device = prepare_actor(config)
        self.context = ray.train.get_context()
        self.is_first = self.context.get_world_rank() == 0
        self.name = f"train worker {self.context.get_world_rank()}"
        self.model = load_model(config, device, adapters=("policy", "reference"))
        self.learner = Learner(self.model, config, make_accelerator(config.train, device))
        self.limits = Limits(config.guard)
        self.store = store_of(config)
        self.collapse = CollapseGuard(config, self.store.place)
        self.previous: Arrays = self.model.weights.state("policy")  # the version before the present one
        # Of all that was scored before a version, from the untuned model's pictures on; `scores[0]` the previous one's.
        self.scores: list[ByScorer] = [scores, scores]
        client = RewardClient(config.key, config.rewards, config.service, config.heldout_names)
        client.standards = standards(config.rewards, scores)  # the first version's for all, so that these compare
        self.probe, self._unscored = Probe(config, self.model, client), client.failures
        self._untuned: HeldOut | None = None  # measured before the first iteration
        self.clock = IterationClock(began)
        self.history = ""  # a line an iteration since the first, which each checkpoint holds
        self._stored: tuple[int, Part] | None = None  # the reference in the store, after so many changes
        self.publisher: Publisher | None = None  # worker 0's

    def run(self) -> None:
        start = self._restore()
        shard = ray.train.get_dataset_shard("pairs")
        tickets = iter(shard.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"))
        goes_on = self.config.guard.on_collapse != "rollback" or rolled_back_to(parse_history(self.history)) is None
        for iteration in range(start, self.config.iterations if goes_on else start):
            stats = self._learn(iteration, tickets)
            if not self._finish(iteration, stats):
                break
            if node_leaves():
                break  # all is saved; the driver starts workers elsewhere before the node is gone
        if self.publisher is not None:
            self.publisher.close()

    def _restore(self) -> int:
        """Loads the checkpoint that the dataset begins from too, and publishes the versions that tickets will ask for.

        Nobody writes in between. Should they differ all the same, the first ticket is of another iteration: refused.
        """
        start = self.store.newest().done
        if start:
            self._load(start)
        if self.is_first:
            held = self.config.rollout.max_lag + 2
            records = parse_history(self.history)[-RECORDS_KEPT:]
            self.publisher = Publisher(self.board, held, self.config.stall_timeout_s, records)
            policy = self.model.weights.state("policy")
            if start and self.config.rollout.max_lag:
                self.model.weights.load("policy", self.previous)
                self._publish(start - 1, self.previous, self.scores[0])
                self.model.weights.load("policy", policy)
            self._publish(start, policy, self.scores[1])
            self._measure_untuned(policy)
        return start

    def _load(self, done: int) -> None:
        state = self.store.load(done)
        self.model.weights.load("policy", state.policy)
        self.model.weights.load("reference", state.reference)  # type: ignore[arg-type]
        restore_optimizer(self.learner.optimizer, state.optimizer)
        self.learner.reference.restore(state.rules.get("reference", {}))
        self.learner.restore_average(state.ema)
        self.learner.restore_rules(state.rules.get("learner", {}))
        self.clock.restore(state.rules.get("clock", 0.0))
        if "scores" in state.rules:
            self.scores = [from_plain(one) for one in state.rules["scores"]]
        self.limits.restore(state.rules.get("limits", {}))
        if self.is_first:
            self.collapse.resume(state.rules.get("collapse", {}), done, state.policy)
        self._stored = self.learner.reference.changes, self.store.manifest(done).parts[REFERENCE]
        # A run that begins to lag has no version before: for one iteration it draws from the newest.
        self.previous = state.previous or state.policy
        self.history = state.history

    def _measure_untuned(self, policy: Arrays) -> None:
        """Once a run, to compare with: at its start, or where a resumed one measures for the first time."""
        if not self.probe.due(0) or self.collapse.begun:
            return
        initial = self.model.weights.state("initial")
        self.model.weights.load("policy", initial)
        self._untuned = self.probe.measure(0)
        self.model.weights.load("policy", policy)
        self.collapse.begin(self._untuned, initial)

    def _learn(self, iteration: int, tickets: Iterator[pa.Table]) -> IterationStats:
        """One iteration: its tickets, in as many optimiser steps as the run sets."""
        config, workers = self.config, self.context.get_world_size()
        per_step = config.rollout.tickets_per_iteration // (config.train.optimizer_steps * workers)
        stats = IterationStats(config.rollout.tickets_per_iteration, config.scorer_names)
        for step in range(config.train.optimizer_steps):
            for position in range(per_step):
                self.board.doing.remote(self.name, f"waits for a ticket of iteration {iteration}")
                table = self._next_ticket(tickets, stats)
                self.board.doing.remote(self.name, f"learns iteration {iteration}")
                stats.add(table, iteration, trained_version=iteration)
                number = step * per_step + position
                self.learner.add_ticket(table, last_of_step=position == per_step - 1, position=number)
            self.learner.step()
        return stats

    def _next_ticket(self, tickets: Iterator[pa.Table], stats: IterationStats) -> pa.Table:
        started = time.perf_counter()
        table = next(tickets, None)
        if table is None:
            raise RunStopped("the pair stream ended before the run did; see the log of the rollout actors above")
        stats.waiting_s += time.perf_counter() - started
        return table

    def _finish(self, iteration: int, stats: IterationStats) -> bool:
        """Whether the run goes on. Raises RunStopped, on all workers, where a guard is set to stop it."""
        metrics, counts, training_s = self.learner.finish_iteration()
        stats.merge(self._gather(stats.packed()))
        stats.check_complete(iteration)
        check_shares(self.config, counts)
        drawn_with = self.scores[0] if stats.lag_max else self.scores[1]
        metrics |= standard_metrics(standards(self.config.rewards, drawn_with))
        self.scores = [self.scores[1], merge_by_scorer(self.scores[1], stats.moments())]
        alarms = self.limits.look(metrics)
        collapsed = self.is_first and self._hand_on(iteration, stats, metrics, counts, training_s, alarms)
        if alarms and self.config.guard.on_limit == "stop":
            self._gather(np.zeros(1))  # waits: a worker that raises has Train end the others, and worker 0 still saves
            raise RunStopped(f"{told(iteration, alarms)} (guard.on_limit = stop; the checkpoint of it is kept)")
        return self._goes_on(iteration, collapsed)

    def _goes_on(self, iteration: int, collapsed: bool) -> bool:
        """Worker 0 measures, all act on what it found."""
        action = self.config.guard.on_collapse
        if action == "warn" or not self.probe.due(iteration + 1):
            return True
        collapsed = bool(self._gather(np.array([float(collapsed)])).any())
        if collapsed and action == "stop":
            raise RunStopped(f"iteration {iteration + 1}: the pictures collapse, as noted (guard.on_collapse = stop)")
        return not collapsed

    def _hand_on(
        self,
        iteration: int,
        stats: IterationStats,
        metrics: dict[str, float],
        counts: dict[str, int],
        training_s: float,
        alarms: list[Alarm],
    ) -> bool:
        """Saves, publishes, measures, reports: worker 0 for all. Whether the pictures are found to collapse."""
        assert self.publisher is not None
        metrics |= peak_memory(self.model.device)
        started = time.perf_counter()
        policy = self.model.weights.state("policy")
        self._publish(iteration + 1, policy, self.scores[1])  # first: the rollout pool draws while the rest is done
        seconds = {"training": training_s, "sync": time.perf_counter() - started}
        record = stats.record(iteration, metrics, counts, seconds)
        self.collapse.trained(record.metrics)
        record, collapse = self._with_held_out(record, policy)
        if collapse is not None:
            alarms = [*alarms, collapse]
        if alarms:
            record = replace(record, extra=record.extra | {"alarms": [asdict(alarm) for alarm in alarms]})
            self.board.note.remote(told(iteration, alarms))
        record = replace(record, seconds=record.seconds | {"wall": self.clock.lap()})
        started = time.perf_counter()
        self._save(record, policy)
        self.previous = policy
        seconds = record.seconds | {"sync": record.seconds["sync"] + time.perf_counter() - started}
        self.publisher.record(replace(record, seconds=seconds))
        return collapse is not None

    def _with_held_out(self, record: IterationRecord, policy: Arrays) -> tuple[IterationRecord, Alarm | None]:
        """Measures the policy in place if it is time to, and judges what it finds."""
        extra = dict(record.extra)
        if self._untuned is not None:
            extra["heldout_start"] = asdict(self._untuned)
            self._untuned = None
        if not self.probe.due(record.version):
            return replace(record, extra=extra), None
        found = self.probe.measure(record.version)
        for failure in self._unscored:
            self.board.note.remote(f"no score from {failure} in a held-out measurement; its mean is of the others")
        extra["heldout"] = asdict(found)
        alarm, more = self.collapse.look(record, found, policy)
        extra |= more
        measured = replace(
            record,
            metrics=record.metrics | found.metrics(),
            counts=record.counts | {"heldout_scores_failed": found.num_failed},
            seconds=record.seconds | {"probe": found.seconds},
            extra=extra,
        )
        return measured, alarm

    def _gather(self, packed: np.ndarray) -> np.ndarray:
        """The packed statistics of all workers, (W, n)."""
        tensor = torch.from_numpy(packed)[None].to(self.model.device)
        return self.learner.accelerator.gather(tensor).cpu().numpy()

    def _save(self, record: IterationRecord, policy: Arrays) -> None:
        self.history += history_line(record)
        changes = self.learner.reference.changes
        unchanged = self._stored is not None and self._stored[0] == changes
        held_out = record.metrics.get(f"heldout/{self.config.best_by}", math.nan)
        stored = self.store.save(
            Checkpoint(
                iterations_done=record.version,
                config=self.config.model_dump(mode="json"),
                policy=policy,
                reference=self._stored[1] if self._stored and unchanged else self.model.weights.state("reference"),
                optimizer=optimizer_arrays(self.learner.optimizer),
                previous=self.previous if self.config.rollout.max_lag else None,
                ema=self.learner.average_state(),
                rules=self._rules(),
                history=self.history,
                held_out=held_out if math.isfinite(held_out) else None,
                held_out_by=self.probe.by,
            )
        )
        self._stored = changes, stored

    def _rules(self) -> dict[str, Any]:
        """What the learner, the reference, the guards, the scores' scales and the clock remember."""
        return {
            "learner": self.learner.rules(),
            "reference": self.learner.reference.state(),
            "limits": self.limits.state(),
            "collapse": self.collapse.state(),
            "scores": [to_plain(one) for one in self.scores],
            "clock": self.clock.state,
        }

    def _publish(self, version: int, arrays: Arrays, scores: ByScorer) -> None:
        """`arrays` are the policy in place, whose canary answers; `scores` are of all scored before the version."""
        assert self.publisher is not None
        published = replace(publishable(self.model, version, arrays), standards=standards(self.config.rewards, scores))
        self.publisher.publish(published, ray.put(arrays))
