from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import GuardConfig, TrainConfig
from rayalign.errors import RunStopped
from rayalign.learning.guards import MIN_HISTORY, Alarm, Limits, SkippedSteps, told
from rayalign.learning.learner import Learner
from rayalign.records import SKIP_REASONS, tensor_column
from tests.learning.learners import learner_of, parameters, same_bits, step_on
from tests.learning.tables import pairs
from tests.learning.two_workers import WORKERS, run_two

KEPT = ("kept",) * 3


def skips(counts: dict[str, int]) -> dict[str, int]:
    """Reasons that cost a step; they add up to all skipped steps."""
    found = {reason: counts[f"skipped_steps_{reason}"] for reason in SKIP_REASONS}
    assert sum(found.values()) == counts["skipped_steps"]
    return {reason: count for reason, count in found.items() if count}


def plant_in_gradient(learner: Learner) -> Any:
    """NaN in one entry of the gradient, at every backward pass until the handle is removed."""

    def spoil(grad: torch.Tensor) -> torch.Tensor:
        spoilt = grad.clone()
        spoilt.view(-1)[0] = math.nan
        return spoilt

    return learner.model.weights.parameters("policy")[0].register_hook(spoil)


def nan_latents(learner: Learner, rows: int, where: int) -> Any:
    """Latents (rows, C, H, W) with one NaN in row `where`."""
    values = np.zeros((rows, *learner.model.latent_shape), dtype=np.float32)
    values[where].flat[0] = math.nan
    return tensor_column(values)


def test_a_nan_in_a_gradient_costs_one_step_and_is_counted() -> None:
    learner, clean = learner_of(), learner_of()
    before, good = parameters(learner), pairs(learner.model, 1, KEPT)
    handle = plant_in_gradient(learner)
    step_on(learner, [pairs(learner.model, 2, KEPT)])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters(learner), before, strict=True))
    handle.remove()
    for each in (learner, clean):
        step_on(each, [good])
    # Nothing of it stays: not in the weights, not in Adam's moments.
    assert same_bits(learner.model.weights.state("policy"), clean.model.weights.state("policy"))
    metrics, counts, _ = learner.finish_iteration()
    assert skips(counts) == {"gradient": 1}
    assert (counts["optimizer_steps"], counts["pairs_kept"], counts["pairs_in_skipped_steps"]) == (1, 6, 3)
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_nan_in_a_loss_costs_one_step_and_stands_in_no_mean() -> None:
    learner = learner_of()
    before, good = parameters(learner), pairs(learner.model, 1, KEPT)
    step_on(learner, [pairs(learner.model, 2, KEPT, winner=nan_latents(learner, 3, where=1)), good])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(parameters(learner), before, strict=True))
    metrics, counts, _ = learner.finish_iteration()
    assert skips(counts) == {"loss": 1}
    assert (counts["loss_not_finite"], counts["pairs_in_skipped_steps"], counts["pairs_kept"]) == (1, 6, 6)
    assert all(math.isfinite(value) for value in metrics.values())
    step_on(learner, [good])
    assert skips(learner.finish_iteration()[1]) == {}


def test_the_limit_of_steps_in_a_row_stops_the_run_and_says_where_and_what_to_try() -> None:
    learner = learner_of(train={"max_skipped_steps": 3, "optimizer_steps": 2}, iterations=8)
    table = pairs(learner.model, 1, KEPT, iteration=[4] * 3)
    handle = plant_in_gradient(learner)
    step_on(learner, [table])
    step_on(learner, [table])
    learner.finish_iteration()
    handle.remove()
    step_on(learner, [pairs(learner.model, 1, ("tie",) * 3, iteration=[5] * 3)])  # no fault, and no end of the row
    plant_in_gradient(learner)
    with pytest.raises(
        RunStopped, match=r"^iteration 6 of 8, optimiser step 2 of 2: the gradient was not finite"
    ) as stop:
        step_on(learner, [pairs(learner.model, 1, KEPT, iteration=[5] * 3)])
    assert "the last of 3 such optimiser steps in a row (train.max_skipped_steps = 3)" in str(stop.value)
    assert "Try train.mixed_precision = no (now auto), or a lower train.lr (now 0.001)" in str(stop.value)


def test_a_step_that_is_made_ends_the_row() -> None:
    skipped = SkippedSteps(TrainConfig(max_skipped_steps=2))
    for reason in ("loss", None, "gradient", "empty", "overflow", None, "loss"):
        skipped.note(reason, "here")
    with pytest.raises(RunStopped, match="the loss was not finite"):
        skipped.note("loss", "here")


def test_a_restart_neither_forgives_the_row_nor_forgets_the_loss_scale() -> None:
    first, again = (learner_of(train={"max_skipped_steps": 3}) for _ in range(2))
    first.skipped.note("loss", "here")
    first.skipped.note("gradient", "here")
    first.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    again.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    again.restore_rules(json.loads(json.dumps(first.rules())))
    assert again.accelerator.scaler.get_scale() == 512.0
    with pytest.raises(RunStopped, match="the last of 3 such optimiser steps in a row"):
        again.skipped.note("loss", "here")


def on_two(rank: int, fault: str) -> tuple[dict[str, Any], dict[str, int], str]:
    """Three steps; in the second, worker 1 meets a NaN, in the third and fourth too. -> policies, counts, error."""
    learner = learner_of(train={"max_skipped_steps": 2})
    policies, error = [], ""
    for number in range(4):
        faulty = number > 0 and rank == 1
        winner = nan_latents(learner, 3, 1) if faulty and fault == "loss" else None
        table = pairs(learner.model, 10 * number + rank, KEPT, **({} if winner is None else {"winner": winner}))
        handle = plant_in_gradient(learner) if faulty and fault == "gradient" else None
        try:
            step_on(learner, [table])
        except RunStopped as stop:
            error = str(stop)
            break
        finally:
            if handle is not None:
                handle.remove()
        policies.append(learner.model.weights.state("policy"))
    return policies, learner.finish_iteration()[1], error


def both_faults(rank: int) -> dict[str, Any]:
    return {fault: on_two(rank, fault) for fault in ("loss", "gradient")}


@pytest.mark.timeout(900)
def test_a_nan_on_one_of_two_workers_makes_both_skip_and_stop_alike(tmp_path: Any) -> None:
    found = run_two(tmp_path, both_faults)
    assert len(found) == WORKERS
    for fault in ("loss", "gradient"):
        (policies, counts, error), (others, other_counts, other_error) = (one[fault] for one in found)
        assert error == other_error
        assert f"optimiser step 3 of 1: the {fault} was not finite" in error
        assert counts == other_counts | {"policy_calls": counts["policy_calls"]}
        assert skips(counts) == {fault: 2}
        assert (counts["optimizer_steps"], counts["pairs_in_skipped_steps"]) == (1, 12)
        assert counts["loss_not_finite"] == (2 if fault == "loss" else 0)
        assert len(policies) == len(others) == 2
        for ours, theirs in zip(policies, others, strict=True):
            assert same_bits(ours, theirs)
        assert same_bits(policies[1], policies[0])  # the skipped step changed nothing on either


def metrics(**values: float) -> dict[str, float]:
    harmless = {"grad_norm": 1.0, "log_ratio": 0.0, "divergence": 0.0}
    return {f"guard/{name}": value for name, value in (harmless | values).items()}


def test_a_limit_speaks_once_a_run_and_names_value_limit_and_remedy() -> None:
    limits = Limits(GuardConfig(log_ratio=0.5, divergence=0.1))
    assert limits.look(metrics(log_ratio=0.5, divergence=0.1)) == []
    (alarm,) = limits.look(metrics(log_ratio=0.75))
    assert alarm.guard == "log_ratio"
    assert alarm.text.startswith("mean |log policy/reference| 0.75 is past guard.log_ratio = 0.5")
    assert [alarm.guard for alarm in limits.look(metrics(log_ratio=2.0, divergence=0.3))] == ["divergence"]
    again = Limits(GuardConfig(log_ratio=0.5, divergence=0.1))
    again.restore(limits.state())  # a resumed run has said it
    assert again.look(metrics(log_ratio=9.0, divergence=9.0)) == []


def test_the_gradient_norm_is_measured_by_the_median_of_those_before() -> None:
    limits = Limits(GuardConfig(grad_norm=10.0))
    assert limits.look(metrics(grad_norm=1000.0)) == []  # nothing to compare with
    assert limits.look(metrics(grad_norm=2.0)) == []
    assert limits.look(metrics(grad_norm=0.0)) == []  # an iteration without a step is no history
    assert limits.look(metrics(grad_norm=3.0)) == []
    assert MIN_HISTORY == 3
    assert limits.look(metrics(grad_norm=30.0)) == []  # median of 1000, 2, 3 is 3
    (alarm,) = limits.look(metrics(grad_norm=170.0))  # of 1000, 2, 3, 30: 16.5
    assert alarm.text.startswith("gradient norm 170 is past guard.grad_norm (10 times the median so far, 16.5)")


def test_a_limit_of_null_and_a_metric_that_is_missing_say_nothing() -> None:
    limits = Limits(GuardConfig(log_ratio=None, divergence=None, grad_norm=None))
    for _ in range(5):
        assert limits.look(metrics(grad_norm=1e9, log_ratio=1e9, divergence=1e9)) == []
    assert Limits(GuardConfig()).look({}) == []


def test_a_line_for_the_log() -> None:
    assert told(4, [Alarm("a", "one"), Alarm("b", "two")]) == "iteration 5: one; two"


@pytest.mark.parametrize("source", ["stepwise", "trajectory", "final", "sample"])
def test_ratio_and_divergence_are_logged_of_every_kind_of_rows(source: str) -> None:
    objective = {"kind": "ddpo"} if source == "sample" else {"kind": "dpo"}
    rows = {"final": "clean"}.get(source, source)
    found = []
    for start in (None, 1):
        learner = learner_of(start=start, source=source, objective=objective)
        for parameter in learner.optimizer.param_groups:
            parameter["lr"] = 0.0
        step_on(learner, [pairs(learner.model, 1, KEPT, rows)])
        calls = learner.model.calls.copy()
        found.append(learner.finish_iteration()[0])
        assert set(calls) <= {"policy", "reference"}
    at_start, nudged = found
    assert at_start["guard/divergence"] == 0.0
    assert nudged["guard/divergence"] > 1e-6
    if source != "sample":  # there the ratio is to the policy that drew the row, which the table makes up
        assert at_start["guard/log_ratio"] == pytest.approx(0.0, abs=1e-7)
        assert nudged["guard/log_ratio"] > 1e-6
        assert nudged["guard/grad_norm"] == nudged["grad_norm"] > 0  # of one step


def test_the_divergence_costs_no_counted_call() -> None:
    learner = learner_of()
    step_on(learner, [pairs(learner.model, 1, KEPT)])
    _, counts, _ = learner.finish_iteration()
    assert (counts["policy_calls"], counts["reference_calls"]) == (3, 3)
