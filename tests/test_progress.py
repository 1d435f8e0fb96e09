from __future__ import annotations

import math

import pytest

from rayalign.progress import Progress, clock, dropped
from rayalign.records import STATUSES, IterationRecord


def record(iteration: int, reward: float, ties: int = 0, failed: int = 0, **counted: int) -> IterationRecord:
    metrics = {"reward": reward, "loss": 0.6931, "accuracy": 0.5}
    counts = {f"pairs_{status}": 0 for status in STATUSES} | counted
    counts |= {"pairs_kept": 8, "pairs_tie": ties, "pairs_score_failed": failed}
    return IterationRecord(iteration, iteration + 1, metrics, counts, {}, 0)


def test_one_line_an_iteration_with_the_change_since_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(4)
    progress.stage("begins")
    progress.waiting("only a terminal shows this")
    progress.iteration(record(0, -2.0))
    progress.iteration(record(1, -1.5, ties=3, failed=1))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "begins"
    assert second.startswith("iteration   1/4  reward   -2.0000 (+0.0000)  loss 0.6931  accuracy 0.50")
    assert third.startswith("iteration   2/4  reward   -1.5000 (+0.5000)")
    assert "3 ties, 1 unscored  left 0:00" in third


def test_drops_are_named_only_where_there_are_any() -> None:
    assert [dropped(record(0, 0.0, *counts)) for counts in ((0, 0), (2, 0), (0, 5))] == ["", "2 ties  ", "5 unscored  "]


def test_every_status_but_kept_has_a_word() -> None:
    for status in STATUSES[1:]:
        one = record(0, 0.0)
        one.counts[f"pairs_{status}"] = 7
        assert dropped(one).startswith("7 "), status
    small = dropped(record(0, 0.0, 1, 2, pairs_small_gap=3, pairs_unlabelled=4, pairs_broken_image=5))
    assert small == "1 ties, 3 too close, 2 unscored, 4 unlabelled, 5 broken image  "


def test_what_an_objective_or_a_dataset_does_not_have_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """SFT and DDPO have no accuracy; a preference set brings no rewards."""
    one = record(0, math.nan)
    del one.metrics["accuracy"]
    Progress(1).iteration(one)
    line = capsys.readouterr().out
    assert line.startswith("iteration   1/1  loss 0.6931  ")
    assert not {"reward", "accuracy", "nan"} & set(line.split())


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
