"""The conformance check of a scorer that runs in an environment of its own: there, by a task of Ray's."""

from __future__ import annotations

import ray

from rayalign.config import RewardConfig
from rayalign.pipeline.cluster import connect
from rayalign.pipeline.scoring.service import runtime_env_for
from rayalign.rewards.table import scorer_class
from rayalign.rewards.testing import find_problems


def find_problems_there(reward: RewardConfig) -> list[str]:
    """What `rayalign.rewards.testing.find_problems` says in the scorer's own environment, made first where needed."""
    embedded = connect([reward.scorer])
    try:
        task = ray.remote(num_cpus=0, runtime_env=runtime_env_for(reward))(_find_problems)
        return ray.get(task.remote(reward))
    finally:
        if embedded:
            ray.shutdown()


def _find_problems(reward: RewardConfig) -> list[str]:
    return find_problems(scorer_class(reward.scorer), **reward.options)
