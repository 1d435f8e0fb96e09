"""What is elsewhere: the hub, and the Ray cluster of RAY_ADDRESS. Short timeouts, no retries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from rayalign.doctor.finding import Finding, ok, problem, warning
from rayalign.hub import hub_address, offline_variable, silence
from rayalign.redaction import redacted

CONNECT_S, CLUSTER_S, START_S = 2.0, 9.0, 60.0


def check_hub() -> Iterator[Finding]:
    """Whether models can be fetched; a machine without network runs on local folders and what is cached."""
    if variable := offline_variable():
        yield ok("hub", f"not asked, {variable} is set: models come from local folders and the cache")
        return
    address = redacted(hub_address())
    if answer := silence(hub_address()):
        fix = "see to network and proxy, or set --model to a local folder and HF_HUB_OFFLINE=1 to skip waiting for it"
        yield warning("hub", f"{address} does not answer ({redacted(answer)})", fix)
    else:
        token = "a token is set" if os.environ.get("HF_TOKEN") else "no HF_TOKEN, so gated models are closed"
        yield ok("hub", f"{address} answers; {token}")


def check_cluster(start: bool = False) -> Iterator[Finding]:
    """The cluster of RAY_ADDRESS, asked from a process of its own, which can be given up. `start`: an embedded one."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and not start:
        yield ok("ray", "RAY_ADDRESS is not set: a job starts a cluster of its own on this machine (--start-ray tries)")
        return
    if address and (closed := _closed_port(address)):
        fix = "start the cluster (ray start --head), or set RAY_ADDRESS to its address, or unset it to run here"
        yield problem("ray", f"nothing listens at RAY_ADDRESS = {redacted(address)} ({closed})", fix)
        return
    command = [sys.executable, "-m", "rayalign.pipeline.reachable"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=CLUSTER_S if address else START_S)
        facts = json.loads(said.stdout.strip().splitlines()[-1]) if said.returncode == 0 else {}
        error = said.stderr.strip().splitlines()[-1:] or ["no answer"]
    except (subprocess.TimeoutExpired, ValueError, IndexError) as failed:
        facts, error = {}, [type(failed).__name__]
    if not facts:
        where = f"RAY_ADDRESS = {redacted(address)}" if address else "an embedded cluster"
        fix = "its Ray and Python versions must be these, and RAY_AUTH_MODE the same on both sides; see its logs"
        yield problem("ray", f"{where} could not be joined ({redacted(error[0])})", fix)
        return
    total = ", ".join(f"{facts['resources'].get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
    where = f"cluster at {redacted(address)}" if address else "an embedded cluster started and ended"
    yield ok("ray", f"{where}: {facts['nodes']} nodes, {total}, Ray {facts['version']}")


def _closed_port(address: str) -> str:
    """Why host:port does not answer; empty where it does, or the address is none (`auto`)."""
    host, _, port = address.rpartition("://")[2].rpartition("@")[2].rpartition(":")
    if not host or not port.isdigit():
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""
