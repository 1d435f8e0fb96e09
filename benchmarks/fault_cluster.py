"""Three Ray nodes on this machine, and which processes of theirs to kill. Nobody else's Ray is touched."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

import psutil

# What a process's title says of the actor it holds.
TITLES = {
    "rollout actor": "RolloutActor",
    "scorer replica": "ServeReplica",
    "train worker": "RayTrainWorker",
    "board": "PolicyBoard",
    "serve controller": "ServeController",
}
# One of each, detached: they serve every job to come.
RAYS_OWN = (
    "_StatsActor",
    "_AutoscalingCoordinatorActor",
    "ActorLocationTracker",
    "DashboardAgent",
    "RuntimeEnvAgent",
    "_UsageCollectionActor",
)
WORKER_CPUS = 4
PAUSE_S = (2.0, 6.0)
# A dead node is noticed after a second or two; Ray's defaults take half a minute.
QUICK = {"health_check_period_ms": 500, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}


@dataclass
class FaultCluster:
    """A head without CPUs, as on Kubernetes, and two worker nodes."""

    nodes: list[Any] = field(default_factory=list)

    def __enter__(self) -> FaultCluster:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK, "include_dashboard": False}
        )
        self.nodes = [self._add() for _ in range(2)]
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=WORKER_CPUS, include_dashboard=False)

    def kill_node(self, rng: random.Random, replaced: bool = True) -> str:
        """A worker node with all on it, at once; a new one joins. Says what was on it."""
        node = rng.choice(self.nodes)
        held = [name for name in TITLES if holds(node, name)]
        self.nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        if replaced:
            self.nodes.append(self._add())
        return f"node with {', '.join(held) or 'nothing'}"

    def kill(self, what: str, rng: random.Random) -> str:
        """SIGKILL to one process that holds such an actor."""
        self.find(what, rng).kill()
        return what

    def pause(self, what: str, rng: random.Random) -> str:
        """Such a process answers nobody for a while, as behind a network that stalls."""
        process, seconds = self.find(what, rng), rng.uniform(*PAUSE_S)
        process.suspend()
        time.sleep(seconds)
        process.resume()
        return f"{what} silent for {seconds:.1f} s"

    def find(self, what: str, rng: random.Random, wait_s: float = 60.0) -> psutil.Process:
        """One of them; waits for one to be there."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            found = [p for p in self.processes() if TITLES[what] in _title(p)]
            if found:
                return rng.choice(sorted(found, key=lambda process: process.pid))
            time.sleep(0.1)
        raise TimeoutError(f"no {what} is running")

    def actors(self) -> list[str]:
        """Titles of the workers that hold an actor or run a task, but for those that Ray Data leaves in any cluster."""
        titles = [_title(process) for process in self.processes()]
        working = [title for title in titles if title.startswith("ray::") and "IDLE" not in title]
        return [title for title in working if not any(name in title for name in RAYS_OWN)]

    def processes(self) -> list[psutil.Process]:
        """The workers of all nodes. This process started the nodes, so none of another cluster is among them."""
        return [
            process
            for raylet in psutil.Process(os.getpid()).children()
            if "raylet" in _name(raylet)
            for process in _children(raylet)
        ]


def holds(node: Any, what: str) -> bool:
    """Whether such an actor is on the node."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return any(TITLES[what] in _title(process) for process in _children(raylet))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _title(process: psutil.Process) -> str:
    """Ray writes the actor's class into it."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
