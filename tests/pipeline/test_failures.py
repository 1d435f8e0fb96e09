"""When the driver starts training again, what it says of a stall, and how it takes a signal. No Ray needed."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from rayalign.errors import Interrupted, RunStopped, WeightsError
from rayalign.pipeline.board import BoardStatus
from rayalign.pipeline.failures import Failures
from rayalign.pipeline.signals import interruptible
from rayalign.pipeline.watch import who_waits

DIED = WorkerGroupError("rank 1", {1: RuntimeError("first line\nits process has died")})


def test_failures_in_a_row_stop_the_run_and_progress_forgives_them() -> None:
    failures = Failures(allowed=2)
    for done in (3, 3, 4, 4, 9):
        assert failures.add(DIED, done, None) == "train worker 1 failed (RuntimeError: its process has died)"
    failures.add(DIED, 9, None)
    with pytest.raises(RunStopped, match=r"(?s)failed 3 times without finishing .* \(max_failures = 2\).*rank 1"):
        failures.add(DIED, 9, None)


def test_none_allowed_means_none() -> None:
    with pytest.raises(RunStopped, match="failed 1 times"):
        Failures(allowed=0).add(DIED, 5, None)


def test_a_node_that_is_about_to_go_is_no_failure_while_iterations_get_done() -> None:
    failures = Failures(allowed=0)
    assert "about to go" in failures.add(None, 3, None)
    assert "about to go" in failures.add(None, 4, None)
    with pytest.raises(RunStopped, match="without finishing"):
        failures.add(None, 4, None)


def test_what_a_restart_would_only_meet_again_stops_at_once() -> None:
    with pytest.raises(RunStopped, match="wrong modules"):
        Failures(allowed=9).add(DIED, 3, "weights bound to the wrong modules")
    ours = WorkerGroupError("rank 0", {0: WeightsError("checksum")})
    with pytest.raises(RunStopped, match="checksum"):
        Failures(allowed=9).add(ours, 3, None)


def test_a_stall_names_who_waits_for_what_the_longest_first() -> None:
    doing = {"ticket 9": ("waits for policy version 2", 3.0), "train worker 0": ("waits for a ticket", 40.0)}
    said = who_waits(BoardStatus(version=1, doing=doing))
    assert said == "train worker 0 waits for a ticket since 40 s; ticket 9 waits for policy version 2 since 3 s"
    assert "no train worker has published" in who_waits(BoardStatus(version=-1, doing=doing))
    assert "rollout actor has no room" in who_waits(BoardStatus(version=1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_becomes_an_error_that_nothing_takes_for_a_fault(number: int, code: int) -> None:
    before = signal.getsignal(number)

    def work_that_retries_faults() -> None:
        with interruptible(), interruptible(), suppress(Exception):
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(Interrupted) as caught:
        work_that_retries_faults()
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
