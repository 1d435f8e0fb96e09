"""tickets -> gate -> rollout pool [-> annotate pool] -> pairs, as one lazily executed Ray Dataset for the whole run.

Offline: tickets -> encoder pool [-> annotate pool] -> pairs.

One execution for all iterations: a dataset each would start its actors anew every time (1.5 to 3 s). Built inside
Train's controller, each time a worker group starts, for the iterations that are not committed yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray

from rayalign.config import RunConfig
from rayalign.pipeline.annotate import AnnotateActor
from rayalign.pipeline.board import answer
from rayalign.pipeline.data_pass import in_pool, set_up_data
from rayalign.pipeline.encode import EncodeActor
from rayalign.pipeline.gate import Gate
from rayalign.pipeline.resume import store_of
from rayalign.pipeline.rollout import RolloutActor


def pair_dataset_factory(config: RunConfig, board: Any) -> Callable[[], ray.data.Dataset]:
    """A callable for `TorchTrainer(datasets=...)`: Train calls it anew whenever its workers start."""

    def make_dataset() -> ray.data.Dataset:
        status = answer(board.status.remote(), config.stall_timeout_s, "Ray Train's controller")
        if status.fatal is not None:
            raise RuntimeError(status.fatal)
        start = store_of(config).newest().done
        answer(board.begin.remote(start), config.stall_timeout_s, "Ray Train's controller")
        return pair_dataset(config, board, start)

    return make_dataset


def pair_dataset(config: RunConfig, board: Any, start_iteration: int) -> ray.data.Dataset:
    """The pairs of iterations start_iteration .. config.iterations - 1, one block a ticket, in ticket order."""
    set_up_data(in_order=True, stall_timeout_s=config.stall_timeout_s)
    rollout = config.rollout
    first, end = (n * rollout.tickets_per_iteration for n in (start_iteration, config.iterations))
    tickets = ray.data.from_blocks([pa.table({"ticket": [number]}) for number in range(first, end)])
    pairs = _read(tickets, config, board) if config.pairs.kind == "dataset" else _draw(tickets, config, board)
    if config.objective.embeds_with is not None:
        pairs = in_pool(pairs, AnnotateActor, (config,), config.placement.annotate)
    return pairs


def _draw(tickets: ray.data.Dataset, config: RunConfig, board: Any) -> ray.data.Dataset:
    """Online: through the gate to the rollout pool."""
    rollout = config.rollout
    at_gate = 2 * rollout.tickets_per_iteration
    passed = tickets.map_batches(
        Gate,
        fn_constructor_args=(board, rollout.tickets_per_iteration, rollout.max_lag),
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(
            size=1, max_concurrent_calls_per_actor=at_gate, max_tasks_in_flight_per_actor=at_gate
        ),
        num_cpus=0.01,
    )
    return in_pool(passed, RolloutActor, (config, board), config.placement.rollout, rollout.tickets_in_flight)


def _read(tickets: ray.data.Dataset, config: RunConfig, board: Any) -> ray.data.Dataset:
    """Offline: rows wait for no policy, so there is no gate."""
    return in_pool(tickets, EncodeActor, (config, board), config.placement.rollout)
