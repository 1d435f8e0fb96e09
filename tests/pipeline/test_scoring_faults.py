"""Runs whose scorer fails in every way there is: each pair is kept or counted under its reason, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.config import RunConfig
from rayalign.errors import RunStopped
from rayalign.evaluation.history import read_history
from rayalign.pipeline.run import run
from tests.pipeline.faulty import NAME, calls_of

pytestmark = pytest.mark.usefixtures("ray_cluster")

RETRIES = 2
TIMEOUT_S = 2.0


def settings(folder: Path, prompts: list[str], service: dict[str, Any], **changes: Any) -> RunConfig:
    """One pair a ticket and a ticket for each prompt, which come one after the other: a fault has no company."""
    (folder / "prompts.txt").write_text("\n".join(prompts))
    (folder / "heldout.txt").write_text("fine")
    tree: dict[str, Any] = {
        "output": str(folder),
        "iterations": 1,
        "model": {"path": "stub"},
        "prompts": {"source": str(folder / "prompts.txt"), "heldout": str(folder / "heldout.txt")},
        "rewards": [{"scorer": NAME, "options": {"folder": str(folder), "seconds": TIMEOUT_S + 0.5}}],
        "sampler": {"num_steps": 6},
        "pairs": {"tuned_steps": [4]},
        "rollout": {"samples_per_ticket": 1, "tickets_per_iteration": len(prompts), "tickets_in_flight": 1},
        "service": {"timeout_s": TIMEOUT_S, "retries": RETRIES} | service,
        "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1, "min": 2, "max": 2}, "train": {"cpus": 0.5}},
        "evaluation": {"num_prompts": 1, "seeds_per_prompt": 1},
        "max_failures": 0,
        "stall_timeout_s": 600,
    }
    return RunConfig.model_validate(tree | changes)


def counted(summary: dict[str, Any]) -> dict[str, int]:
    return {status: count for status, count in summary["num_pairs"].items() if count}


def test_each_fault_ends_as_the_policy_says_and_the_counts_add_up(tmp_path: Path) -> None:
    prompts = ["fine", "die", "slow", "raise", "nan", "inf", "short", "flat"]
    config = settings(tmp_path, prompts, {"max_failed_share": 5 / 8})  # what is lost, and no more
    summary = run(config)
    assert counted(summary) == {
        "kept": 2,  # fine, and the one whose replica died: another one answered
        "tie": 1,
        "score_timeout": 1,
        "score_raised": 1,
        "score_not_finite": 2,
        "score_wrong_length": 1,
    }
    assert json.loads((config.folder / "summary.json").read_text())["num_pairs"] == summary["num_pairs"]
    assert sum(summary["num_pairs"].values()) == len(prompts)
    assert "dropped: a scorer did not answer in time" in (config.folder / "report.html").read_text()
    # A pair is one call for the candidates and one for the finished image. No answer is asked for again, each time
    # after a longer wait; a NaN is an answer.
    for prompt in ("raise", "short"):
        calls = calls_of(tmp_path, prompt)
        assert len(calls) == 2 * (1 + RETRIES)
        first, second = np.diff(calls)[:2]
        assert first >= 0.2
        assert second >= 0.4
    for prompt in ("nan", "inf"):
        assert len(calls_of(tmp_path, prompt)) == 2
    assert len(calls_of(tmp_path, "slow")) >= 1 + RETRIES  # the last ones may still have been queued
    assert len(calls_of(tmp_path, "die")) >= 3


@pytest.mark.slow
def test_a_run_stops_past_the_share_and_says_what_was_lost(tmp_path: Path) -> None:
    config = settings(tmp_path, ["fine", "raise", "nan", "flat"], {"retries": 0, "max_failed_share": 0.4})
    lost = r"2 of 4 pairs were lost to failed scores \(1 raised, 1 not finite\) \(50%, allowed 40%\)"
    with pytest.raises(RunStopped, match=f"{lost}; see the scorer's error above, or raise service.max_failed_share"):
        run(config)


@pytest.mark.slow
def test_one_answer_for_everything_and_nothing_but_ties_are_called_out_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    placement = {"rollout": {"cpus": 0.5, "min": 2, "max": 2}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}}
    rollout = {"samples_per_ticket": 4, "tickets_per_iteration": 4}
    config = settings(tmp_path, ["flat"], {}, iterations=2, rollout=rollout, placement=placement)
    summary = run(config)
    assert counted(summary) == {"tie": 32}
    constant, ties = summary["warnings"]
    # 4 tickets of 4 samples, each with 2 candidates and the finished image.
    assert constant.startswith(f"scorer {NAME} answered 0.5 for all 48 images of iteration 1, at least ")
    assert ties.startswith("all 16 pairs of iteration 1 that have rewards are ties")
    log, report = capsys.readouterr().out, (config.folder / "report.html").read_text()
    assert "<h2>Warnings</h2>" in report
    for sentence in (constant, ties):
        assert sentence.endswith("(also in 1 further iteration).")
        said = sentence.removesuffix(" (also in 1 further iteration).")
        assert log.count(f"warning: {said}.") == 1
        assert said.split(": ")[0] in report
    assert len(read_history(config.folder)) == 2


@pytest.mark.slow
def test_a_pair_that_kills_every_replica_is_dropped_and_the_others_live(tmp_path: Path) -> None:
    service = {"retries": 1, "timeout_s": 30.0, "max_failed_share": 0.5}
    summary = run(settings(tmp_path, ["fine", "dies"], service))
    assert counted(summary) == {"kept": 1, "score_replica_died": 1}
    assert len(calls_of(tmp_path, "dies")) == 2 * 2
