from __future__ import annotations

from typing import Any

from rayalign.evaluation.wrong import alarms, rolled_back_to, what_went_wrong
from rayalign.records import IterationRecord


def record(iteration: int, extra: dict[str, Any] | None = None, **counts: int) -> IterationRecord:
    return IterationRecord(iteration, iteration + 1, {}, counts, {}, 0, extra or {})


ALARM = {"guard": "divergence", "text": "the policy is far"}
COLLAPSE = {"guard": "collapse", "text": "edges fell"}


def test_of_a_run_without_trouble_there_is_nothing_to_say() -> None:
    calm = [record(0, skipped_steps_empty=3, skipped_steps_overflow=2, pairs_tie=9), record(1)]
    assert what_went_wrong({}, calm) == []
    assert what_went_wrong({}, []) == []
    assert rolled_back_to([]) is None


def test_everything_that_can_go_wrong_has_its_line_worst_first() -> None:
    history = [
        record(0, skipped_steps_loss=1, skipped_steps_gradient=2, pairs_latent_failed=3, heldout_scores_failed=5),
        record(1, {"alarms": [ALARM]}, skipped_steps_gradient=2, pairs_latent_failed=4),
        record(2, {"alarms": [COLLAPSE], "rollback": 2}),
    ]
    assert alarms(history) == [{"iteration": 1} | ALARM, {"iteration": 2} | COLLAPSE]
    back, *rest = what_went_wrong({}, history)
    assert back.startswith("The run went back to policy version 2, the last good one, and ended")
    assert rest == [
        "Iteration 2: the policy is far",
        "Iteration 3: edges fell",
        "Optimiser steps were skipped because a number was NaN or infinite: 1 of a loss, 4 of a gradient.",
        "7 pairs were dropped because a latent was NaN or infinite.",
        "5 scores of held-out measurements failed: curves and alarms are of the others.",
    ]


def test_an_alarm_that_stopped_the_run_is_told_once() -> None:
    history = [record(0, {"alarms": [ALARM]})]
    stopped = {"stopped": "iteration 1: the policy is far (guard.on_limit = stop)"}
    assert what_went_wrong(stopped, history) == [
        "The run stopped itself: iteration 1: the policy is far (guard.on_limit = stop)"
    ]


def test_a_run_that_went_on_since_is_not_rolled_back() -> None:
    assert rolled_back_to([record(0, {"rollback": 0})]) == 0
    assert rolled_back_to([record(0, {"rollback": 0}), record(1)]) is None
