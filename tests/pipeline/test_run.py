"""Whole runs on the stub model: resume, workers, failures. Each starts its rollout pool, scorers and Ray Train anew."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.evaluation.drift import MEANING
from rayalign.evaluation.history import read_history
from rayalign.evaluation.report_run import time_shares
from rayalign.pipeline.run import run
from rayalign.pipeline.validate import with_absolute_paths
from rayalign.records import IterationRecord
from tests.pipeline.tools import kill_actor

pytestmark = pytest.mark.usefixtures("ray_cluster")


def policy(config: RunConfig, done: int) -> dict[str, np.ndarray]:
    return load_file(config.folder / "checkpoints" / f"iteration-{done:06d}" / "policy.safetensors")


def equal_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, Any]]:
    """Five iterations in one go, with one train worker."""
    config = settings(tmp_path_factory.mktemp("whole"), name="whole")
    return config, run(config)


def settings(output: Path, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "output": str(output),
        "iterations": 5,
        "model": {"path": "stub"},
        "rewards": [{"scorer": "stub"}],
        "sampler": {"num_steps": 6},
        "pairs": {"tuned_steps": [5, 3]},
        "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 4},
        "train": {"lr": 1e-2, "micro_batch": 3, "optimizer_steps": 2},
        "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
        "evaluation": {"num_prompts": 2, "seeds_per_prompt": 2},
        "stall_timeout_s": 600,
    }
    return RunConfig.model_validate(tree | changes)


def test_a_run_leaves_its_whole_folder_and_honest_counts(undisturbed: tuple[RunConfig, dict[str, Any]]) -> None:
    config, summary = undisturbed
    left = {path.name for path in config.folder.iterdir()}
    assert {"config.yaml", "summary.json", "history.jsonl", "checkpoints", "images", "report.html"} <= left
    assert any(name.startswith("events.") for name in left)
    assert json.loads((config.folder / "summary.json").read_text())["policy_version"] == 5
    pairs = summary["num_pairs"]
    # 5 iterations x 4 tickets x 2 samples x 2 tuned steps
    assert sum(pairs.values()) == 80
    assert summary["num_trajectories"] == 40
    assert summary["denoiser_calls_per_trajectory"] == 6 + 2
    assert summary["denoiser_calls_per_pair_trained"] == {"policy": 1.0, "reference": 1.0}
    assert summary["optimizer_steps"] == 10
    assert summary["lag_max"] == 0
    assert set(summary["reward"]["stub"]) >= {"before", "after", "win_rate"}


def test_names_of_built_in_things_are_no_paths_and_files_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("a cat\n")
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(settings(Path("runs"), prompts={"source": "mine.txt", "heldout": "animals"}))
    assert config.folder == tmp_path / "runs" / "tailorpo"
    assert config.prompts.source == str(tmp_path / "mine.txt")
    assert (config.prompts.heldout, config.model.path) == ("animals", "stub")


def test_stopped_after_three_and_started_again_gives_the_same_lora(
    undisturbed: tuple[RunConfig, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = undisturbed
    monkeypatch.chdir(tmp_path)  # a relative output folder, as users have it: actors work elsewhere
    # Measured on held-out prompts in between, which changes nothing either.
    measured = {"evaluation": {"num_prompts": 2, "seeds_per_prompt": 2, "every": 2, "probe_prompts": 2}}
    run(settings(Path("runs"), name="again", iterations=3, **measured))
    again = settings(tmp_path / "runs", name="again", **measured)
    # As a driver leaves it that dies between a checkpoint and its line; the checkpoint has the record too.
    lines = (again.folder / "history.jsonl").read_text().splitlines(keepends=True)
    (again.folder / "history.jsonl").write_text("".join(lines[:2]))
    (again.folder / "summary.json").unlink()
    began = time.monotonic()
    summary = run(again)
    attempt_s = time.monotonic() - began
    assert summary["num_iterations"] == 5
    history = read_history(again.folder)
    assert [record.iteration for record in history] == list(range(5))
    assert [record.iteration for record in history if "heldout/stub" in record.metrics] == [1, 3]
    assert history[0].extra["heldout_start"]["version"] == 0
    assert history[3].extra["heldout"]["statistics"].keys() == MEANING.keys()
    assert equal_bits(policy(again, 5), policy(whole, 5))
    # By the clock: this attempt, and the iterations of the one that left no summary. No stage of the report's.
    killed_s = sum(record.seconds["wall"] for record in history[:3])
    assert 0 < killed_s < summary["seconds"]["wall"] < killed_s + attempt_s
    assert summary["seconds"]["wall"] == pytest.approx(killed_s + attempt_s, abs=5)
    assert "wall" not in {part["stage"] for part in time_shares(summary, history)["parts"]}
    said = (again.folder / "run.log").read_text()
    fourth = history[3].metrics["reward"]
    assert f"iteration   4/5  reward {fourth:9.4f} ({fourth - history[0].metrics['reward']:+.4f})" in said
    logs = re.findall(r"logs of Ray and its actors (.+)", said)
    assert len(logs) == 2  # once in each attempt
    assert any(Path(logs[0]).glob("worker-*"))


def test_killed_board_rollout_actor_and_train_worker_change_no_bit(
    undisturbed: tuple[RunConfig, dict[str, Any]], tmp_path: Path
) -> None:
    whole, _ = undisturbed
    config = settings(tmp_path, name="killed")
    due = {1: ["PolicyBoard", "RolloutActor"], 3: ["RayTrainWorker"]}  # after so many iterations
    killed: list[str] = []

    def kill() -> None:
        while due:
            done = len(read_history(config.folder))
            for title in due.pop(next((after for after in due if after <= done), -1), []):
                kill_actor(title)
                killed.append(title)
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    summary = run(config)
    assert killed == ["PolicyBoard", "RolloutActor", "RayTrainWorker"]
    assert summary["ray"]["restarts"]["train"] == 1
    assert [learned(r) for r in read_history(config.folder)] == [learned(r) for r in read_history(whole.folder)]
    assert equal_bits(policy(config, 5), policy(whole, 5))


def learned(record: IterationRecord) -> tuple[Any, ...]:
    """All but the clock."""
    return record.iteration, record.metrics, record.counts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_resume_with_other_numbers_of_workers_and_actors_learns_the_same(
    undisturbed: tuple[RunConfig, dict[str, Any]], tmp_path: Path
) -> None:
    """Two train workers, then one, then two; the checkpoints by way of fsspec, and the last on a new machine's disk."""
    whole, _ = undisturbed
    places = {"checkpoints": f"local://{tmp_path}/bucket", "name": "moved"}
    stages = ((2, 2, 1, "one"), (4, 1, 2, "one"), (5, 2, 1, "two"))
    for iterations, workers, actors, machine in stages:
        placement = whole.placement.model_dump() | {"train": {"num": workers, "cpus": 0.5}}
        placement["rollout"] |= {"min": actors, "max": actors}
        config = settings(tmp_path / machine, iterations=iterations, placement=placement, **places)
        summary = run(config)
    # The new disk has the whole history, and no pair was missed or trained on twice.
    assert summary["num_iterations"] == 5
    assert sum(summary["num_pairs"].values()) == 80
    expected, found = read_history(whole.folder), read_history(config.folder)
    assert [record.counts["pairs_kept"] for record in found] == [record.counts["pairs_kept"] for record in expected]
    for name in ("loss", "grad_norm", "reward"):
        assert [record.metrics[name] for record in found] == pytest.approx(
            [record.metrics[name] for record in expected], rel=1e-5
        )
    left = sorted(path.name for path in (tmp_path / "bucket" / "moved").iterdir())
    assert left == ["iteration-000003", "iteration-000004", "iteration-000005", "shared"]
    assert len(list((tmp_path / "bucket" / "moved" / "shared").iterdir())) == 1


def test_a_folder_of_other_settings_is_refused(undisturbed: tuple[RunConfig, dict[str, Any]]) -> None:
    whole, _ = undisturbed
    other = RunConfig.model_validate(whole.model_dump() | {"seed": 7})
    with pytest.raises(ConfigError, match=r"of other settings \(seed 0 -> 7\); set them back, or another --name"):
        run(other)
