"""Whole runs in which a number goes wrong: a NaN in a latent, a gradient that overflows, pictures that collapse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rayalign.config import RunConfig
from rayalign.errors import RunStopped
from rayalign.evaluation.history import read_history
from rayalign.evaluation.image_set import ImageSet
from rayalign.learning.checkpoint_place import LocalPlace
from rayalign.learning.good_policy import load_good
from rayalign.models.load import load_model
from rayalign.pipeline.resume import store_of
from rayalign.pipeline.run import run
from rayalign.sampling.images import as_stored, draw_images
from rayalign.toy import toy_path

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(900)]


def settings(output: Path, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "output": str(output),
        "iterations": 8,
        "model": {"path": "stub"},
        "rewards": [{"scorer": "stub"}],
        "sampler": {"num_steps": 6},
        "pairs": {"tuned_steps": [5, 3]},
        "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 4},
        "train": {"lr": 3e-2, "micro_batch": 3, "optimizer_steps": 2},
        "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
        "evaluation": {"num_prompts": 2, "seeds_per_prompt": 2},
        "stall_timeout_s": 600,
        "max_failures": 0,
    }
    return RunConfig.model_validate(tree | changes)


def report_of(config: RunConfig) -> str:
    return (config.folder / "report.html").read_text()


def test_pictures_that_collapse_send_the_run_back_to_its_last_good_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brightness is the reward: the stub's pictures turn white, and lose colour and variety."""
    guard = {"on_collapse": "rollback", "max_fall": 0.1}
    evaluation = {"num_prompts": 2, "seeds_per_prompt": 2, "every": 1}
    config = settings(tmp_path, name="back", guard=guard, evaluation=evaluation)
    summary = run(config)
    history = read_history(config.folder)
    back, (alarm,) = summary["rolled_back_to"], summary["alarms"]
    assert len(history) < 8
    assert back == len(history) - 1 == alarm["iteration"]  # measured every iteration: the one before the alarm
    assert alarm["guard"] == "collapse"
    assert alarm["text"].startswith("the guiding reward rose while ")
    assert summary["policy_version"] == back
    # What is saved, and what the pictures after tuning show, is that policy's and not the newest's.
    good = load_good(LocalPlace(config.folder / "checkpoints"), back)
    stored = store_of(config).policy(back)
    assert all(np.array_equal(good[name], value) for name, value in stored.items())
    after = ImageSet.load(config.folder / "images" / "after")
    model = load_model(config, "cpu")
    model.weights.load("policy", good)
    np.testing.assert_array_equal(as_stored(draw_images(model, after.prompts, after.seeds))[0], after.images)
    out = capsys.readouterr().out
    assert out.count("the guiding reward rose while") == 2  # once when it happened, once at the end
    assert f"The run went back to policy version {back}, the last good one" in report_of(config)
    # The same command again trains no more and says why.
    again = run(config)
    assert again["rolled_back_to"] == back
    assert len(read_history(config.folder)) == len(history)
    assert "set guard.on_collapse to warn to train on" in capsys.readouterr().out
    np.testing.assert_array_equal(ImageSet.load(config.folder / "images" / "after").images, after.images)


def test_gradients_that_overflow_stop_the_run_at_the_limit_with_a_report(tmp_path: Path) -> None:
    config = settings(
        tmp_path, name="overflow", objective={"beta": 1e38}, train={"max_skipped_steps": 3, "optimizer_steps": 2}
    )
    with pytest.raises(RunStopped, match=r"iteration 2 of 8, optimiser step 1 of 2: the gradient was not finite"):
        run(config)
    (record,) = read_history(config.folder)
    counts = record.counts
    assert (counts["optimizer_steps"], counts["skipped_steps"], counts["skipped_steps_gradient"]) == (0, 2, 2)
    assert counts["pairs_in_skipped_steps"] == counts["pairs_kept"]
    summary = json.loads((config.folder / "summary.json").read_text())
    assert summary["skipped_steps_by_reason"] == {"loss": 0, "gradient": 2, "empty": 0, "overflow": 0}
    assert "train.max_skipped_steps = 3" in summary["stopped"]
    assert "The run stopped itself: iteration 2 of 8" in report_of(config)


def test_a_limit_that_is_passed_stops_the_run_if_so_set_and_keeps_the_iteration(tmp_path: Path) -> None:
    config = settings(tmp_path, name="limit", guard={"divergence": 1e-9, "on_limit": "stop"})
    with pytest.raises(RunStopped, match=r"iteration 1: the policy's predictions are .* past guard.divergence = 1e-09"):
        run(config)
    (record,) = read_history(config.folder)
    assert [alarm["guard"] for alarm in record.extra["alarms"]] == ["divergence"]
    assert (config.folder / "checkpoints" / "iteration-000001").is_dir()
    assert report_of(config).count("past guard.divergence") == 1


def poisoned(folder: Path) -> Path:
    """toy-sdxl, whose text encoders answer NaN to any prompt with the word red."""
    shutil.copytree(toy_path("toy-sdxl"), folder)
    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    word = vocabulary["red</w>"]
    for encoder in ("text_encoder", "text_encoder_2"):
        path = folder / encoder / "model.safetensors"
        arrays = load_file(path)
        (name,) = [name for name in arrays if name.endswith("token_embedding.weight")]
        arrays[name][word] = float("nan")
        save_file(arrays, path, metadata={"format": "pt"})
    return folder


def test_nan_latents_are_dropped_and_counted_and_too_many_stop_the_run(tmp_path: Path) -> None:
    spoilt, sound = ["red circle"], ["blue circle", "blue square", "blue ring"]
    lines = [f"a {size} {thing}\n" for size in ("small", "large") for thing in spoilt + sound]
    (tmp_path / "prompts.txt").write_text("".join(lines))
    (tmp_path / "held.txt").write_text("a small blue circle\na large blue square\n")
    common: dict[str, Any] = {
        "iterations": 1,
        "model": {"path": str(poisoned(tmp_path / "model"))},
        "prompts": {"source": str(tmp_path / "prompts.txt"), "heldout": str(tmp_path / "held.txt")},
        "rewards": [{"scorer": "jpeg"}],
        "train": {"lr": 1e-3, "micro_batch": 4, "optimizer_steps": 1},
    }
    survived = settings(tmp_path, name="survived", guard={"max_failed_latents": 0.5}, **common)
    summary = run(survived)
    # Eight prompts, one a sample, two of them red; two tuned steps.
    assert summary["num_pairs"]["latent_failed"] == 4
    assert summary["num_pairs"]["score_failed"] == 0
    assert sum(summary["num_pairs"].values()) == 16
    assert (summary["optimizer_steps"], summary["skipped_steps"]) == (1, 0)
    assert "4 pairs were dropped because a latent was NaN or infinite" in report_of(survived)
    stopped = settings(tmp_path, name="stopped", **common)
    with pytest.raises(RunStopped, match=r"4 of 16 pairs were lost to latents that are NaN or infinite \(25%"):
        run(stopped)
