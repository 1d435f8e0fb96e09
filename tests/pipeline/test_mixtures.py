"""A run on a standardised mixture: which statistics each policy version uses, and that resuming keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rayalign.config import RunConfig
from rayalign.evaluation.history import read_history
from rayalign.evaluation.image_set import ImageSet
from rayalign.pipeline.run import run
from rayalign.rewards.statistics import Moments, from_plain, moments_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

RED = "rayalign.rewards.stub:StubScorer"
WEIGHTS = {"stub": 1.0, RED: -0.5}


def settings(output: Path, name: str, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "name": name,
        "output": str(output),
        "iterations": 3,
        "model": {"path": "stub"},
        "rewards": [
            {"scorer": "stub", "scale": "standardised"},
            {"scorer": RED, "scale": "standardised", "weight": -0.5, "options": {"rule": "red"}},
        ],
        "sampler": {"num_steps": 6},
        "pairs": {"tuned_steps": [5, 3]},
        "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 4, "max_lag": 1},
        "train": {"lr": 1e-2, "micro_batch": 3},
        "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
        "evaluation": {"num_prompts": 2, "seeds_per_prompt": 2, "every": 3, "probe_prompts": 1},
        "stall_timeout_s": 600,
    }
    return RunConfig.model_validate(tree | changes)


def statistics(config: RunConfig, done: int) -> list[dict[str, Moments]]:
    """Of the version before the checkpoint's, and of the checkpoint's."""
    state = json.loads((config.folder / "checkpoints" / f"iteration-{done:06d}" / "state.json").read_text())
    return [from_plain(one) for one in state["rules"]["scores"]]


def policy(config: RunConfig) -> dict[str, np.ndarray]:
    return load_file(config.folder / "checkpoints" / "iteration-000003" / "policy.safetensors")


@pytest.fixture(scope="module")
def whole(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Three iterations in one go, from one rollout actor."""
    config = settings(tmp_path_factory.mktemp("whole"), "whole")
    run(config)
    return config


def test_each_version_standardises_by_what_was_scored_before_it(whole: RunConfig) -> None:
    before = ImageSet.load(whole.folder / "images" / "before")
    by_version = [{name: moments_of(before.scores[name]) for name in WEIGHTS}]
    for done in (1, 2, 3):
        previous, newest = statistics(whole, done)
        assert previous == by_version[-1]
        by_version.append(newest)
    # 4 pictures before, then 4 tickets x 2 samples x (2 steps x 2 candidates + 1 finished image) an iteration.
    assert [version["stub"].count for version in by_version] == [4, 44, 84, 124]
    for record, version in zip(read_history(whole.folder), (0, 0, 1), strict=True):  # lag 1: drawn one version behind
        used = by_version[version]
        expected = 0.0
        for name, weight in WEIGHTS.items():
            assert record.metrics[f"score_mean/{name}"] == used[name].mean
            assert record.metrics[f"score_std/{name}"] == used[name].std
            expected += weight * (record.metrics[f"reward/{name}"] - used[name].mean) / used[name].std
        assert record.metrics["reward"] == pytest.approx(expected, abs=1e-5)
    heldout, first = read_history(whole.folder)[-1].extra["heldout"], by_version[0]
    parts = {name: (heldout["scores"][name] - first[name].mean) / first[name].std for name in WEIGHTS}
    # By version 0's statistics, as at the start: what is measured while training must compare.
    assert heldout["reward"] == pytest.approx(sum(WEIGHTS[name] * part for name, part in parts.items()), abs=1e-4)


@pytest.mark.slow
def test_resumed_and_from_two_actors_it_is_the_same_run(whole: RunConfig, tmp_path: Path) -> None:
    two = {"rollout": {"min": 2, "max": 2, "cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}}
    run(settings(tmp_path, "again", iterations=1, placement=two))
    again = settings(tmp_path, "again", placement=two)
    run(again)
    assert statistics(again, 3) == statistics(whole, 3)
    ours, theirs = policy(again), policy(whole)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
