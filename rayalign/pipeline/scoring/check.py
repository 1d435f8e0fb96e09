"""The conformance check of a scorer that runs in an environment of its own: there, by a task of Ray's."""

from __future__ import annotations

import ray
from ray.exceptions import GetTimeoutError

from rayalign.config import RewardConfig
from rayalign.errors import RayalignError
from rayalign.pipeline.cluster import connect
from rayalign.pipeline.scoring.service import runtime_env_for
from rayalign.rewards.table import scorer_class
from rayalign.rewards.testing import find_problems

CHECK_S = 3600.0  # its environment's first installation and a download of weights included


def find_problems_there(reward: RewardConfig) -> list[str]:
    """What `rayalign.rewards.testing.find_problems` says in the scorer's own environment, made first where needed.

    Raises RayalignError if that takes longer than an hour.
    """
    embedded = connect([reward.scorer])
    try:
        task = ray.remote(num_cpus=0, runtime_env=runtime_env_for(reward))(_find_problems)
        return ray.get(task.remote(reward), timeout=CHECK_S)
    except GetTimeoutError:
        raise RayalignError(
            f"the check waits for scorer {reward.scorer} in its own environment, and nothing came for {CHECK_S:g} s: "
            "its installation, a download or the scorer itself hangs, or no node has room (`ray status` says)"
        ) from None
    finally:
        if embedded:
            ray.shutdown()


def _find_problems(reward: RewardConfig) -> list[str]:
    return find_problems(scorer_class(reward.scorer), **reward.options)
