"""A cluster that grows and shrinks on this machine: Ray's own autoscaler, with nodes that are processes.

Not `ray.cluster_utils.AutoscalingCluster`: its start and its end run `ray stop --force`, which ends every Ray of the
machine, and it reads a file that the wheel does not have.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from ray._private import ray_constants

ROOT = Path(__file__).parents[2]
HEAD_UP_S = 60.0
NODE_STORE_BYTES = 100 * 2**20  # each node is a process with an object store of its own: small ones
COMMANDS = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
FREE_PORTS = ("--port", "--ray-client-server-port", "--dashboard-agent-listen-port", "--metrics-export-port")


@contextmanager
def fake_nodes(node_cpus: int, max_nodes: int, idle_s: float) -> Iterator[dict[str, str]]:
    """A head without CPUs, and up to `max_nodes` workers as they are needed; gives the environment of a driver.

    A driver must be a process of its own, since the test's process may be in another cluster already.

    Args:
        node_cpus: logical CPUs of a worker node.
        idle_s: a node that does nothing for this long is taken away.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has 107 characters at most
    ports = dict(zip(FREE_PORTS, _free_ports(len(FREE_PORTS)), strict=True))
    address = f"127.0.0.1:{ports['--port']}"
    settings = folder / "cluster.yaml"
    settings.write_text(yaml.safe_dump(_cluster(address, node_cpus, max_nodes, idle_s / 60)))
    environment = _environment()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
    command += [f"{name}={port}" for name, port in ports.items()]
    command += [f"--temp-dir={folder}", f"--autoscaling-config={settings}", f"--object-store-memory={NODE_STORE_BYTES}"]
    command += ["--include-dashboard=false", "--include-log-monitor=false", "--disable-usage-stats"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(head, folder / "head.log")
        yield environment | {"RAY_ADDRESS": address}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)  # head, autoscaler and the nodes that it started; workers follow
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _cluster(address: str, node_cpus: int, max_nodes: int, idle_minutes: float) -> dict[str, object]:
    """What a cluster's YAML says, for the provider whose nodes are processes."""
    worker = {"CPU": node_cpus, "object_store_memory": NODE_STORE_BYTES}
    # The autoscaler reads these without asking whether they are there.
    nothing = {"file_mounts": {}} | {f"{name}_commands": [] for name in COMMANDS} | {"cluster_synced_files": []}
    return nothing | {
        "cluster_name": "fake",
        "max_workers": max_nodes,
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": max_nodes,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,  # all nodes are at one address; by it, none would ever be seen idle
            "launch_multiple": True,  # else one node a launch, whatever their number
            "foreground_node_launch": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": max_nodes},
        },
    }


def _environment() -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "0",  # this provider is for the first one
        "RAY_AUTH_MODE": "disabled",
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",  # all at 127.0.0.1, whatever other tests made of this
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",  # 5 by default
    }


def _free_ports(count: int) -> list[int]:
    """All bound at once, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for(head: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + HEAD_UP_S
    while time.monotonic() < deadline and head.poll() is None:
        if "Ray runtime started" in log.read_text():
            return
        time.sleep(0.2)
    raise RuntimeError(f"the head did not start:\n{log.read_text()}")
