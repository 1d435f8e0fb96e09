"""Run as a module: joins RAY_ADDRESS, or starts and ends an embedded cluster, and prints what it found as JSON."""

from __future__ import annotations

import json

import ray

from rayalign.pipeline.cluster import connect


def main() -> None:
    connect()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        facts = {"nodes": len(nodes), "resources": ray.cluster_resources(), "version": ray.__version__}
    finally:
        ray.shutdown()
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
