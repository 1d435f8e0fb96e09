"""What is refused before any actor starts, on the cluster's side."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import ray

from rayalign.errors import ConfigError, RayalignError
from rayalign.pipeline.cluster import check_placement, connect

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_run_that_fits_passes(stub_run: Any) -> None:
    check_placement(stub_run())


def test_more_train_workers_than_cpus_names_the_setting(stub_run: Any) -> None:
    have = ray.cluster_resources()["CPU"]
    config = stub_run(placement={"train": {"num": 64, "cpus": 1}}, rollout={"tickets_per_iteration": 64})
    with pytest.raises(ConfigError, match=rf"placement.train.*the cluster has {have:g}; lower this setting's cpus"):
        check_placement(config)


def test_gpus_that_are_not_there_are_named(stub_run: Any) -> None:
    config = stub_run(placement={"rollout": {"cpus": 0.1, "gpus": 4}})
    with pytest.raises(ConfigError, match=r"placement.rollout.*4 GPUs.*the cluster has 0"):
        check_placement(config)


def test_one_actor_must_fit_on_one_node(stub_run: Any) -> None:
    # Enough CPUs in sum, as far as the check of sums can tell, is not enough if no node has them together.
    nodes = max(node["Resources"].get("CPU", 0) for node in ray.nodes())
    config = stub_run(placement={"scorer": {"cpus": nodes + 1}})
    with pytest.raises(ConfigError, match=r"placement\.scorer"):
        check_placement(config)


def test_a_scorer_placed_apart_is_counted_apart(stub_run: Any) -> None:
    jpeg = {"scorer": "jpeg", "placement": {"cpus": 0.1}}
    check_placement(stub_run(rewards=[{"scorer": "stub"}, jpeg]))
    placed = {"scorer": "jpeg", "placement": {"gpus": 2, "min": 3, "max": 3}}
    for config in (stub_run(rewards=[{"scorer": "stub"}, placed]), stub_run(evaluation={"scorers": [placed]})):
        with pytest.raises(ConfigError, match=r"rewards\.jpeg\.placement = .*needs 6 GPUs .* cluster has 0"):
            check_placement(config)


def test_a_growing_cluster_is_not_asked(stub_run: Any) -> None:
    check_placement(stub_run(placement={"train": {"num": 1, "cpus": 500}, "cluster_may_grow": True}))


def test_nothing_of_an_embedded_cluster_listens_to_the_network() -> None:
    """Dashboard agent, metrics, Serve, raylet and every actor: on loopback alone."""
    from ray import serve

    serve.start(proxy_location="Disabled")
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    ours = {process.pid: process.name() for process in processes}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert len(listening) > 3
    outside = [(ours[c.pid], c.laddr) for c in listening if not c.laddr.ip.removeprefix("::ffff:").startswith("127.")]
    assert [found for found in outside if found[1].ip != "::1"] == []
    assert not ray._private.worker._global_node.address_info.get("webui_url")  # no dashboard
    serve.shutdown()


def test_a_ray_that_does_not_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(**_: Any) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RayalignError, match=r"Ray did not start .*timed out during startup.*free, then give the same"):
        connect()
