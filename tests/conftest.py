"""What tests of several folders share: one Ray cluster for the session, and small run settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayalign.config import RunConfig

# Before Ray is imported, as jobs do it.
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One embedded cluster for all tests that need Ray: starting one takes seconds."""
    import ray

    from rayalign.pipeline.cluster import connect

    connect()
    yield
    ray.shutdown()


@pytest.fixture
def stub_run(tmp_path: Path) -> Any:
    """Settings of a quick run on the stub model and scorer: `stub_run(name="a", train={...})`."""

    def make(**changes: Any) -> RunConfig:
        tree: dict[str, Any] = {
            "name": "stub",
            "output": str(tmp_path / "runs"),
            "iterations": 2,
            "model": {"path": "stub"},
            "rewards": [{"scorer": "stub"}],
            "sampler": {"num_steps": 6},
            "pairs": {"tuned_steps": [5, 3]},
            "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 4},
            "train": {"lr": 1e-2, "micro_batch": 3},
            "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
            "evaluation": {"num_prompts": 2, "seeds_per_prompt": 2},
            "stall_timeout_s": 600,
        }
        for group, values in changes.items():
            nested = isinstance(values, dict) and isinstance(tree.get(group), dict)
            tree[group] = tree[group] | values if nested else values
        return RunConfig.model_validate(tree)

    return make
