"""The time of every iteration, over workers that die and jobs that are killed; the clock is set by hand."""

from __future__ import annotations

import pytest

from rayalign.pipeline import iteration_clock
from rayalign.pipeline.iteration_clock import IterationClock


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch):
    def set_to(now: float) -> None:
        monkeypatch.setattr(iteration_clock.time, "time", lambda: now)

    return set_to


def test_laps_leave_no_gap_and_pauses_between_jobs_are_none(at) -> None:
    first = IterationClock(began=100.0)
    at(130.0)
    assert first.lap() == 30.0  # what came before the first iteration is part of it
    at(140.0)
    assert first.lap() == 10.0
    # The worker dies at 145 and another goes on from the checkpoint, in the same job: the lost 5 s count.
    second = IterationClock(began=100.0)
    second.restore(first.state)
    at(155.0)
    assert second.lap() == 15.0
    # The job is killed at 160 and started again at 1000.
    third = IterationClock(began=1000.0)
    third.restore(second.state)
    at(1020.0)
    assert third.lap() == 20.0


def test_a_clock_that_was_set_back_takes_nothing_away(at) -> None:
    clock = IterationClock(began=100.0)
    at(90.0)
    assert clock.lap() == 0.0
    at(95.0)
    assert clock.lap() == 5.0
