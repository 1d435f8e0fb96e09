"""Connecting to Ray, and the check that what the run asks for can be placed. Both before any actor starts."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from rayalign.config import PoolConfig, RunConfig, WorkersConfig
from rayalign.errors import ConfigError, RayalignError
from rayalign.rewards.own import code_of

# An embedded Ray on a small machine declares this many logical CPUs: actors here mostly wait for one another, and
# Ray Data hangs without a word when none is left over.
MIN_LOGICAL_CPUS = 8
# Board and gate.
SMALL_ACTORS_CPUS = 0.02


def connect(scorers: Sequence[str] = ()) -> bool:
    """Joins the cluster of RAY_ADDRESS (set under `ray job submit`), else starts one in this process; True if so.

    A cluster that is joined gets the code of a user's own among `scorers`.
    """
    # Quiet what a user can't act on; errors still come through. Set before Ray reads it, and passed on to its actors.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # Elastic workers: how long to wait for nodes that are gone before going on with fewer; Ray's default is 60 s.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "2")
    # All actors of a run start at once; Ray would warn of that.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
    for name in ("ray.data", "ray.train", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if ray.is_initialized():
        return False
    # What actors print stays in Ray's log folder: a run's own output is a few lines. RAYALIGN_VERBOSE=1 shows all.
    quiet = {"logging_level": logging.WARNING, "log_to_driver": bool(os.environ.get("RAYALIGN_VERBOSE"))}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=_code_to_send(scorers), **quiet)
        return False
    _stay_on_loopback()
    # "local": without it the address file of a dead cluster would be tried.
    cpus = max(os.cpu_count() or 1, MIN_LOGICAL_CPUS)
    try:
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises a bare one where its own processes did not come up in time
        fix = "see that processors and memory are free, then give the same command again; `rayalign doctor` looks"
        raise RayalignError(f"Ray did not start on this machine ({' '.join(str(error).split())}); {fix}") from error
    return True


def log_folder() -> str:
    """Where Ray keeps its own log and what each actor printed, on every node; "" where only a cluster knows."""
    node = ray._private.worker._global_node
    return str(node.get_logs_dir_path()) if node is not None else ""


def _stay_on_loopback() -> None:
    """The embedded cluster's ports, Serve's and the metrics' too, answer this machine alone.

    Ray on Linux would take the address of the network and listen on every one; on other systems it does what this
    asks for. The variable is for its processes, the constant for this one, which has imported Ray already.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _code_to_send(scorers: Sequence[str]) -> dict[str, Any]:
    """Ray's `runtime_env` that brings the user's own scorers to nodes that do not see this machine's folders.

    Under `ray job submit` those of its working folder are there already, and what the user sends stays as it is: Ray
    refuses to set a field twice.
    """
    submitted = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env") or {}
    if "py_modules" in submitted:
        return {}
    found = {path for name in scorers if (path := code_of(name)) is not None}
    if "working_dir" in submitted:
        found = {path for path in found if not path.is_relative_to(Path.cwd().resolve())}
    return {"py_modules": sorted(map(str, found))} if found else {}


def check_placement(config: RunConfig) -> None:
    """Raises ConfigError, naming the setting, if the run's smallest need is more than the cluster has.

    Pools count with their minimum: beyond it they grow as room allows.
    """
    if config.placement.cluster_may_grow:
        return
    total = ray.cluster_resources()
    needs = dict(_needs(config))
    for resource, kind in (("CPU", "cpus"), ("GPU", "gpus")):
        asked = {field: count * getattr(group, kind) for field, (group, count) in needs.items()}
        need = sum(asked.values()) + (SMALL_ACTORS_CPUS if resource == "CPU" else 0)
        have = total.get(resource, 0.0)
        if need > have:
            largest = max(asked, key=lambda field: asked[field])
            parts = ", ".join(f"{field} {amount:g}" for field, amount in asked.items() if amount)
            raise ConfigError(
                largest,
                needs[largest][0].model_dump(),
                f"the run needs {need:g} {resource}s ({parts}) and the cluster has {have:g}; lower this setting's "
                f"{kind} or number, or set placement.cluster_may_grow if an autoscaler adds nodes",
            )
    _check_each_fits(needs)


def _needs(config: RunConfig) -> Iterator[tuple[str, tuple[PoolConfig | WorkersConfig, int]]]:
    """(setting, (what one actor takes, how many at least))."""
    placement = config.placement
    yield "placement.train", (placement.train, placement.train.fewest)
    yield "placement.rollout", (placement.rollout, placement.rollout.min)
    if config.objective.embeds_with is not None:
        yield "placement.annotate", (placement.annotate, placement.annotate.min)
    usual = sum(reward.placement is None for reward in config.all_rewards)
    if usual:
        yield "placement.scorer", (placement.scorer, placement.scorer.min * usual)
    for reward in config.all_rewards:
        if reward.placement is not None:
            yield f"rewards.{reward.scorer}.placement", (reward.placement, reward.placement.min)


def _check_each_fits(needs: dict[str, tuple[PoolConfig | WorkersConfig, int]]) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for field, (group, _) in needs.items():
        if not any(n.get("CPU", 0) >= group.cpus and n.get("GPU", 0) >= group.gpus for n in nodes):
            fix = "no node of the cluster has that much for one actor; lower cpus or gpus"
            raise ConfigError(field, group.model_dump(), fix)
