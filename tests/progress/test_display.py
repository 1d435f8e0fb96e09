from __future__ import annotations

import io
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from rayalign.progress import Progress, clock, dropped_words
from rayalign.progress.live import Live, curve
from rayalign.records import STATUSES, IterationRecord


def record(iteration: int, reward: float, ties: int = 0, failed: int = 0, **counted: int) -> IterationRecord:
    metrics = {"reward": reward, "loss": 0.6931, "accuracy": 0.5}
    counts = {f"pairs_{status}": 0 for status in STATUSES} | counted
    counts |= {"pairs_kept": 8, "pairs_tie": ties, "pairs_score_failed": failed}
    return IterationRecord(iteration, iteration + 1, metrics, counts, {}, 0)


def test_one_line_an_iteration_with_the_change_since_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(4)
    progress.stage("begins")
    progress.drawing(3, 8, {"gate": 1})  # only a terminal shows this
    progress.iteration(record(0, -2.0))
    progress.iteration(record(1, -1.5, ties=3, failed=1))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "begins"
    assert second.startswith("iteration   1/4  reward   -2.0000 (+0.0000)  loss 0.6931  accuracy 0.50")
    assert third.startswith("iteration   2/4  reward   -1.5000 (+0.5000)")
    assert "3 ties, 1 unscored  left 0:00" in third


def test_a_resumed_run_counts_its_change_from_its_first_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(4, done=2, start_reward=-2.0)
    progress.iteration(record(2, -1.5))
    assert "iteration   3/4  reward   -1.5000 (+0.5000)" in capsys.readouterr().out


def test_all_that_is_said_stands_in_the_log_with_its_time(tmp_path: Path) -> None:
    for start in range(2):  # a resumed run goes on in the same file
        progress = Progress(2, start, tmp_path / "run.log")
        progress.stage("begins")
        progress.iteration(record(start, -2.0))
        progress.close()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == 4
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (begins|iteration   [12]/2  reward)", line) for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_the_display_fits_the_terminal_and_names_what_goes_on(width: int) -> None:
    out = io.StringIO()
    live = Live(20, 0, Console(file=out, width=width, force_terminal=True, color_system=None))
    for i, reward in enumerate([-1.9, -1.8, -1.85, -1.7]):
        live.iteration(record(i, reward, ties=2), -1.9, 44.02, 151)
    live.drawing(34, 64, {"gate": 4})
    shown = Console(width=width, color_system=None)
    with shown.capture() as captured:
        shown.print(live)
    live.close()
    rows = captured.get().splitlines()
    assert len(rows) == 4
    assert max(map(len, rows)) <= width
    assert re.search(r"iteration +4/20 .* 20%   left 2:31", rows[0])
    assert "drawing: 34 of 64 tickets; 1 wait for policy version 4" in rows[1]
    assert "reward   -1.7000 (+0.2000)   accuracy 0.50   loss 0.6931   ▁▄▃█" in rows[2]
    assert "44.0 pairs/s   lag 0   2 ties" in rows[3]


def test_the_display_says_what_follows_drawing() -> None:
    live = Live(20, 0, Console(file=io.StringIO(), force_terminal=True))
    live.drawing(64, 64, {})
    assert live._stage == "training"
    live.drawing(70, 64, {})
    assert live._stage == "training, and 6 tickets of the next iteration drawn"
    live.stage("drawing 128 images after tuning")
    assert live._stage == "drawing 128 images after tuning"
    live.close()


def test_a_curve_is_scaled_to_what_it_shows() -> None:
    assert curve([1.0, 2.0, math.nan, 3.0]) == "▁▅█"
    assert curve([2.0, 2.0]) == "▁▁"
    assert curve([math.nan]) == ""


def test_drops_are_named_only_where_there_are_any() -> None:
    cases = ((0, 0), (2, 0), (0, 5))
    assert [dropped_words(record(0, 0.0, *counts)) for counts in cases] == ["", "2 ties  ", "5 unscored  "]


def test_every_status_but_kept_has_a_word() -> None:
    for status in STATUSES[1:]:
        one = record(0, 0.0)
        one.counts[f"pairs_{status}"] = 7
        assert dropped_words(one).startswith("7 "), status
    small = dropped_words(record(0, 0.0, 1, 2, pairs_small_gap=3, pairs_unlabelled=4, pairs_broken_image=5))
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
