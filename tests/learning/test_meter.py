from __future__ import annotations

import math

import pytest
import torch

from rayalign.learning.meter import BY_TENTH, COUNTS, STEPS, Meter

NAN = math.nan


def as_one(values: dict[str, float]) -> dict[str, float]:
    return values


def filled(*names: str) -> Meter:
    """Two micro-batches of an iteration: five valid rows, one that is NaN throughout and does not count."""
    meter = Meter(names)
    valid = torch.tensor([True, True, False, True])
    details = {
        "implicit_reward": torch.tensor([1.0, -2.0, NAN, 4.0]),
        "accuracy": torch.tensor([1.0, 0.0, NAN, 1.0]),
    }
    loss = torch.tensor([0.5, 1.5, NAN, 1.0], requires_grad=True)
    # Tenths 0, 9, 3 and, exactly on its edge, 9.
    meter.add(loss, {name: details[name] for name in names}, valid, torch.tensor([0.0, 0.95, 0.35, 0.9]))
    two = {"implicit_reward": torch.tensor([0.5, 0.5]), "accuracy": torch.tensor([0.5, 1.0])}
    both = torch.tensor([True, True])
    meter.add(torch.tensor([0.25, 0.75]), {name: two[name] for name in names}, both, torch.tensor([0.05, 0.0999]))
    meter.count({"pairs_kept": 5, "pairs_tie": 1})
    meter.count({"pairs_tie": 2, "padding_calls": 1})
    meter.stepped(3.0)
    meter.stepped(1.0)
    meter.skipped("gradient", 4)
    meter.add_ratios(torch.tensor([0.25, NAN, 0.5]), torch.tensor([True, False, True]))
    meter.training_s = 0.75
    return meter


def test_an_iteration_by_hand() -> None:
    metrics, counts, seconds = filled(*BY_TENTH).finish({"policy_calls": 7}, as_one, workers=1)
    assert metrics == pytest.approx(
        {
            "loss": 4.0 / 5,  # 0.5 + 1.5 + 1 + 0.25 + 0.75
            "implicit_reward": 4.0 / 5,  # 1 - 2 + 4 + 0.5 + 0.5
            "accuracy": 3.5 / 5,
            "grad_norm": 2.0,  # of the two steps that were made
            "guard/grad_norm": 3.0,  # the larger
            "guard/log_ratio": 0.375,
            # Tenth 0: the first row and the second micro-batch's; tenth 9: the two others. None else has rows.
            "implicit_reward_by_tenth/0": 2.0 / 3,
            "accuracy_by_tenth/0": 2.5 / 3,
            "implicit_reward_by_tenth/9": 1.0,
            "accuracy_by_tenth/9": 0.5,
        }
    )
    assert counts == dict.fromkeys((*COUNTS, *STEPS), 0) | {
        "pairs_kept": 5,
        "pairs_tie": 3,
        "padding_calls": 1,
        "policy_calls": 7,
        "optimizer_steps": 2,
        "skipped_steps": 1,
        "skipped_steps_gradient": 1,
        "pairs_in_skipped_steps": 4,
    }
    assert seconds == 0.75


def test_what_the_objective_does_not_tell_is_not_logged() -> None:
    metrics, _, _ = filled().finish({}, as_one, workers=1)
    assert metrics == pytest.approx({"loss": 0.8, "grad_norm": 2.0, "guard/grad_norm": 3.0, "guard/log_ratio": 0.375})


def test_three_workers_sum_their_rows_and_count_a_step_once() -> None:
    """Each of three has seen the same: means stay, counts of rows and calls triple, steps do not."""
    alone = filled(*BY_TENTH).finish({"policy_calls": 7}, as_one, workers=1)
    together = filled(*BY_TENTH).finish(
        {"policy_calls": 7}, lambda sums: {k: 3 * v for k, v in sums.items()}, workers=3
    )
    assert together[0] == pytest.approx(alone[0])
    steps = {name: alone[1][name] for name in STEPS}
    assert together[1] == {name: 3 * count for name, count in alone[1].items()} | steps


def test_every_worker_asks_for_the_same_sums() -> None:
    """One exchange adds them by position, whatever a worker has or has not seen."""
    asked: list[list[str]] = []

    def note(values: dict[str, float]) -> dict[str, float]:
        asked.append(list(values))
        return values

    for meter in (filled(*BY_TENTH), Meter(BY_TENTH)):
        meter.finish({"policy_calls": 0}, note, workers=2)
    assert asked[0] == asked[1]


def test_it_starts_again() -> None:
    meter = filled(*BY_TENTH)
    meter.finish({}, as_one, workers=1)
    metrics, counts, seconds = meter.finish({}, as_one, workers=1)
    assert metrics == {"loss": 0.0, "implicit_reward": 0.0, "accuracy": 0.0, "grad_norm": 0.0, "guard/grad_norm": 0.0}
    assert not any(counts.values())
    assert seconds == 0.0
