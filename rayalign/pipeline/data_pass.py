"""What every pass of Ray Data here is set up with, and its stages: pools of actors, one block in, one block out."""

from __future__ import annotations

from typing import Any

import ray

from rayalign.config import PoolConfig


def set_up_data(in_order: bool = False, stall_timeout_s: float | None = None) -> None:
    """Ray Data in this process: without progress bars, blocks in their order if asked, an error after a stall."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # they advise on memory= of actors that hold megabytes
    context.execution_options.preserve_order = in_order
    if stall_timeout_s is not None:
        context.execution_no_progress_timeout_s = stall_timeout_s  # type: ignore[attr-defined]


def in_pool(
    data: ray.data.Dataset,
    actor: type,
    arguments: tuple[Any, ...],
    pool: PoolConfig,
    at_once: int = 1,
    **placed: Any,
) -> ray.data.Dataset:
    """One block in, one block out, by an autoscaled pool of actors that work on `at_once` blocks each.

    `placed`: what else Ray is told of an actor (`runtime_env`).
    """
    return data.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(
            min_size=pool.min,
            max_size=pool.max,
            max_concurrent_calls_per_actor=at_once if at_once > 1 else None,
            # Below 1.75 times the concurrency the pool never grows (measured).
            max_tasks_in_flight_per_actor=2 * at_once,
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        **placed,
    )
